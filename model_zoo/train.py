"""Trains a recipe: python -m model_zoo.train --recipe model_zoo/resnet/resnet20_digits_kfac.yaml.

A run that was stopped goes on by python -m model_zoo.train --resume runs/FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.files import newest_checkpoint, ranks_of, read_position
from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.checkpoint.resume import resumed_recipe
from model_zoo.common.command_line import tell
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import UsageError
from model_zoo.common.recipe import check_distributed, load_recipe, sibling
from model_zoo.common.run_options import RunOptions, resumed


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.train", description="Trains a recipe of the zoo."
    )
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="the YAML recipe")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value, as optimizer.learning_rate=0.01",
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of the recipe's data; the digits need none"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write to (default: runs/<recipe>-<time>)"
    )
    parser.add_argument(
        "--compare",
        metavar="NAMES",
        help="run the sibling recipes of these optimizers, as sgdm,kfac, and draw them together",
    )
    parser.add_argument("--device", choices=["CPU", "GPU", "Ascend"], help="where to train (default: CPU)")
    parser.add_argument(
        "--log-every",
        type=_count,
        metavar="STEPS",
        help="steps between losses in metrics.jsonl (default: 10)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=_interval,
        metavar="INTERVAL",
        help="write a checkpoint to resume from every 2epochs (or just 2) or 500steps, and at the end "
        "(default: none)",
    )
    parser.add_argument(
        "--keep", type=_count, metavar="N", help="how many of the newest checkpoints stay (default: 2)"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with the run in this folder, from its newest checkpoint, with the recipe and the options "
        "that it had; only epochs, and what is given here beside the recipe, may change",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train with the other processes that msrun started; scripts/run_distributed_train.sh says this",
    )
    parser.add_argument(
        "--check", action="store_true", help="check the command line and the recipe, and train nothing"
    )
    parser.add_argument("--no-progress", action="store_true", help="draw no bar, only write a line an epoch")
    parsed = parser.parse_args(arguments)
    if parsed.recipe is None and parsed.resume is None:
        parser.error("one of --recipe and --resume is required")
    if parsed.resume is not None and (parsed.output is not None or parsed.compare is not None):
        parser.error("--resume goes on in the run's own folder: it takes neither --output nor --compare")
    if parsed.distributed and parsed.compare is not None:
        parser.error("--compare starts runs of one process, and can't be had with --distributed")
    return parsed


def _count(text: str) -> int:
    count = int(text) if text.isdigit() else 0
    if count < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return count


def _interval(text: str) -> CheckpointInterval:
    try:
        return CheckpointInterval.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _given(options: argparse.Namespace) -> dict[str, Any]:
    names = ("data_dir", "device", "log_every", "checkpoint_every", "keep")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {**given, "progress": not options.no_progress}


def _passed_on(options: argparse.Namespace) -> list[str]:
    arguments = []
    for name in ("device", "log_every", "checkpoint_every", "keep"):
        if getattr(options, name) is not None:
            arguments += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    for override in options.set:
        arguments += ["--set", override]
    if options.data_dir is not None:
        arguments += ["--data-dir", str(options.data_dir)]
    if options.no_progress:
        arguments.append("--no-progress")
    return arguments


def compare_recipes(options: argparse.Namespace) -> int:
    """Trains the sibling recipes that --compare names."""
    name = options.recipe.stem
    paths = {optimizer: sibling(options.recipe, optimizer) for optimizer in options.compare.split(",")}
    recipes = [load_recipe(path, options.set) for path in paths.values()]
    if options.check:
        return 0

    # Only now: MindSpore takes seconds to import, and a mistake in a recipe should be told at once.
    from model_zoo.common.comparison import compare
    from model_zoo.common.run_description import headline_figure

    figure = headline_figure(recipes[0])
    return compare(paths, output_of(options), _passed_on(options), figure, name.rpartition("_")[0])


def output_of(options: argparse.Namespace) -> Path:
    """The folder that a new run writes to."""
    output: Path | None = options.output
    return output or Path("runs") / f"{options.recipe.stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def run(options: argparse.Namespace) -> int:
    """Trains one recipe, or goes on with a run."""
    if options.resume is not None:
        position = read_position(newest_checkpoint(options.resume, Shard(0, ranks_of(options.resume))))
        recipe = resumed_recipe(options.resume, position, options.recipe, options.set)
        run_options = resumed(position.options, options.resume, **_given(options))
    else:
        recipe = load_recipe(options.recipe, options.set)
        run_options = RunOptions(
            **{"name": options.recipe.stem, "data_dir": None, "output": output_of(options), **_given(options)}
        )

    if options.distributed:
        if run_options.device == "Ascend":
            raise UsageError("--distributed runs on CPU or GPU, and the device is Ascend.")
        check_distributed(recipe, run_options.device)
    if options.check:
        return 0

    from model_zoo.common.comparison import results_table
    from model_zoo.common.distribution import quiet_but_first, serve_as_scheduler, start
    from model_zoo.common.run_description import headline_figure
    from model_zoo.common.training import train_recipe

    if options.distributed:
        serve_as_scheduler()
        run_options = replace(run_options, shard=start(run_options.device))
    with quiet_but_first(run_options.shard):
        epochs = train_recipe(recipe, run_options)
    if run_options.shard.rank == 0:
        table = results_table({run_options.name: epochs}, headline_figure(recipe))
        print(f"\n{table}\n\nwritten to {run_options.output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 when the recipe, the data or the command line is at fault."""
    options = parse_arguments(arguments)
    try:
        return run(options) if options.compare is None else compare_recipes(options)
    except UsageError as error:
        return tell(error)


if __name__ == "__main__":
    sys.exit(main())
