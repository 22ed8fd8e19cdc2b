"""Trains a recipe: ms-kfac-zoo train --recipe resnet/resnet20_digits_kfac.

To continue an interrupted run: ms-kfac-zoo train --resume runs/FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.checkpoint.resume import refuse_occupied, resumed_recipe, stored_run
from model_zoo.common.command_line import run_command
from model_zoo.common.errors import UsageError
from model_zoo.common.interruption import StopSignals
from model_zoo.common.ranks import SCHEDULER, announced_ranks, check_ranks, role_in_msrun
from model_zoo.common.recipe import check_distributed, load_recipe, sibling_recipe
from model_zoo.common.run_lock import refuse_if_locked
from model_zoo.common.run_options import RunOptions, resumed
from model_zoo.common.zoo_recipes import recipe_argument

# Options without effect unless another is given.
_NEEDS = {"monitor_eigenvalues": "monitor_every", "keep": "checkpoint_every"}


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="ms-kfac-zoo train", description="Trains a recipe of the zoo.")
    parser.add_argument(
        "--recipe",
        type=recipe_argument,
        metavar="RECIPE",
        help="a YAML file, or a name that `ms-kfac-zoo recipes` lists",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value of the recipe, such as optimizer.learning_rate=0.01",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of the recipe's data (not needed for the digits and stdlib)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write to (default: runs/<recipe>-<time>)"
    )
    parser.add_argument(
        "--compare",
        metavar="NAMES",
        help="train the sibling recipes of these optimizers, such as sgdm,kfac, and plot them together",
    )
    parser.add_argument("--device", choices=["CPU", "GPU", "Ascend"], help="where to train (default: CPU)")
    parser.add_argument(
        "--log-every",
        type=_count,
        metavar="STEPS",
        help="steps between losses in metrics.jsonl (default: 10)",
    )
    parser.add_argument(
        "--monitor-every",
        type=_count,
        metavar="STEPS",
        help="write damping, KL clip and each layer's curvature to metrics.jsonl at this interval "
        "(default: never)",
    )
    parser.add_argument(
        "--monitor-eigenvalues",
        action="store_true",
        default=None,
        help="with --monitor-every: also the extreme eigenvalues, seconds for factors of some thousand rows",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=_interval,
        metavar="INTERVAL",
        help="write a checkpoint at this interval, such as 2epochs (or 2) or 500steps, and at the end "
        "(default: none)",
    )
    parser.add_argument("--keep", type=_count, metavar="N", help="how many checkpoints to keep (default: 2)")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="continue the run in this folder from its newest checkpoint, with its recipe and options; only "
        "epochs and the options given here may change",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run in the output folder; without it, a finished run and checkpoints are kept",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train with the other processes that msrun started; set by scripts/run_distributed_train.sh",
    )
    parser.add_argument(
        "--check", action="store_true", help="check the command line and the recipe without training"
    )
    parser.add_argument("--no-progress", action="store_true", help="print one line per epoch, no bar")
    parsed = parser.parse_args(arguments)
    if parsed.recipe is None and parsed.resume is None:
        parser.error("one of --recipe and --resume is required")
    if parsed.resume is not None and (parsed.output is not None or parsed.compare is not None):
        parser.error("--resume writes to the run's folder: it can't be combined with --output or --compare")
    if parsed.resume is not None and parsed.overwrite:
        parser.error("--resume continues a run: it can't be combined with --overwrite")
    for name, needed in _NEEDS.items():
        # A resumed run may have stored the option.
        if parsed.resume is None and getattr(parsed, name) and getattr(parsed, needed) is None:
            parser.error(f"{_flag(name)} needs {_flag(needed)}")
    if parsed.distributed and parsed.compare is not None:
        parser.error("--compare starts single-process runs: it can't be combined with --distributed")
    return parsed


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


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
    names = (
        "data_dir",
        "device",
        "log_every",
        "monitor_every",
        "monitor_eigenvalues",
        "checkpoint_every",
        "keep",
    )
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return {**given, "progress": not options.no_progress, "overwrite": options.overwrite}


def _passed_on(options: argparse.Namespace) -> list[str]:
    arguments = []
    for name in ("device", "log_every", "monitor_every", "checkpoint_every", "keep"):
        if getattr(options, name) is not None:
            arguments += [_flag(name), str(getattr(options, name))]
    for override in options.set:
        arguments += ["--set", override]
    if options.data_dir is not None:
        arguments += ["--data-dir", str(options.data_dir)]
    for flag in ("monitor_eigenvalues", "no_progress", "overwrite"):
        if getattr(options, flag):
            arguments.append(_flag(flag))
    return arguments


def compare_recipes(options: argparse.Namespace) -> int:
    """Trains the sibling recipes that --compare names."""
    name = options.recipe.stem
    paths = {optimizer: sibling_recipe(options.recipe, optimizer) for optimizer in options.compare.split(",")}
    recipes = [load_recipe(path, options.set) for path in paths.values()]
    output = output_of(options)
    for optimizer in paths:
        check_output(output / optimizer, options.overwrite)
    if options.check:
        return 0

    # Imported late, because importing MindSpore takes seconds and a recipe error should appear at once.
    from model_zoo.common.comparison import compare
    from model_zoo.common.run_description import headline_metric

    metric = headline_metric(recipes[0])
    return compare(paths, output, _passed_on(options), metric, name.rpartition("_")[0])


def output_of(options: argparse.Namespace) -> Path:
    """The output folder of a new run."""
    output: Path | None = options.output
    return output or Path("runs") / f"{options.recipe.stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def check_output(output: Path, overwrite: bool) -> None:
    """Checks that a new run can have a folder.

    Args:
        output: the folder, which may not exist.
        overwrite: whether it may replace another run.

    Raises:
        UsageError: another process writes to the folder, or it holds another run.
    """
    refuse_if_locked(output)
    if not overwrite:
        refuse_occupied(output)


def run(options: argparse.Namespace, signals: StopSignals) -> int:
    """Trains a recipe or resumes a run."""
    # Rank 0 may have locked the folder already; it checks the folder itself.
    started_by_msrun = options.distributed and not options.check
    if options.resume is not None:
        if not started_by_msrun:
            refuse_if_locked(options.resume)
        position = stored_run(options.resume)
        recipe = resumed_recipe(options.resume, position, options.recipe, options.set)
        run_options = resumed(position.options, options.resume, **_given(options))
        for name, needed in _NEEDS.items():
            if getattr(options, name) and getattr(run_options, needed) is None:
                raise UsageError(f"{_flag(name)} needs {_flag(needed)}, which {options.resume} lacks.")
    else:
        recipe = load_recipe(options.recipe, options.set)
        run_options = RunOptions(
            **{"name": options.recipe.stem, "data_dir": None, "output": output_of(options), **_given(options)}
        )
        if not started_by_msrun:
            check_output(run_options.output, run_options.overwrite)

    if options.distributed:
        if run_options.device == "Ascend":
            raise UsageError("--distributed needs --device CPU or GPU, got Ascend.")
        check_distributed(recipe, run_options.device)
    check_ranks(recipe, options.resume, announced_ranks() if options.distributed else 1)
    if options.check:
        return 0

    from model_zoo.common.comparison import results_table
    from model_zoo.common.distribution import serve_as_scheduler, silence_other_ranks, start
    from model_zoo.common.run_description import headline_metric
    from model_zoo.common.training import train_recipe

    if options.distributed:
        serve_as_scheduler()
        run_options = replace(run_options, shard=start(run_options.device))
    with silence_other_ranks(run_options.shard):
        epochs = train_recipe(recipe, run_options, signals)
    if run_options.shard.rank == 0:
        table = results_table({run_options.name: epochs}, headline_metric(recipe))
        print(f"\n{table}\n\nwritten to {run_options.output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 2 for an error in the recipe, the data or the command line."""
    options = parse_arguments(arguments)
    # The scheduler waits in MindSpore until the ranks have ended.
    return run_command(
        lambda signals: run(options, signals) if options.compare is None else compare_recipes(options),
        default_signals=options.distributed and role_in_msrun() == SCHEDULER,
    )


if __name__ == "__main__":
    sys.exit(main())
