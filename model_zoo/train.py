"""Trains a recipe: python -m model_zoo.train --recipe model_zoo/resnet/resnet20_digits_kfac.yaml."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.errors import UsageError
from model_zoo.common.recipe import load_recipe, sibling

USAGE_STATUS = 2


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.train", description="Trains a recipe of the zoo."
    )
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE", help="the YAML recipe")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value, as optimizer.learning_rate=0.01",
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of CIFAR-10 or MNIST; the digits need none"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to write to (default: runs/<recipe>-<time>)"
    )
    parser.add_argument(
        "--compare",
        metavar="NAMES",
        help="run the sibling recipes of these optimizers, as sgdm,kfac, and draw them together",
    )
    parser.add_argument(
        "--device", choices=["CPU", "GPU", "Ascend"], default="CPU", help="where to train (default: CPU)"
    )
    parser.add_argument(
        "--log-every",
        type=int,
        default=10,
        metavar="STEPS",
        help="steps between losses in metrics.jsonl (default: 10)",
    )
    parser.add_argument("--no-progress", action="store_true", help="draw no bar, only write a line an epoch")
    parsed = parser.parse_args(arguments)
    if parsed.log_every < 1:
        parser.error("--log-every must be at least 1")
    return parsed


def _passed_on(options: argparse.Namespace) -> list[str]:
    arguments = ["--device", options.device, "--log-every", str(options.log_every)]
    for override in options.set:
        arguments += ["--set", override]
    if options.data_dir is not None:
        arguments += ["--data-dir", str(options.data_dir)]
    if options.no_progress:
        arguments.append("--no-progress")
    return arguments


def run(options: argparse.Namespace) -> int:
    """Trains one recipe, or compares several."""
    name = options.recipe.stem
    output = options.output or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if options.compare is not None:
        paths = {optimizer: sibling(options.recipe, optimizer) for optimizer in options.compare.split(",")}
        recipes = [load_recipe(path, options.set) for path in paths.values()]
    else:
        recipes = [load_recipe(options.recipe, options.set)]

    # Only now: MindSpore takes seconds to import, and a mistake in a recipe should be told at once.
    from model_zoo.common.comparison import compare, results_table
    from model_zoo.common.training import RunOptions, headline_figure, train_recipe

    figure = headline_figure(recipes[0])
    if options.compare is not None:
        return compare(paths, output, _passed_on(options), figure, name.rpartition("_")[0])
    run_options = RunOptions(
        name, options.data_dir, output, options.device, options.log_every, progress=not options.no_progress
    )
    epochs = train_recipe(recipes[0], run_options)
    print(f"\n{results_table({name: epochs}, figure)}\n\nwritten to {output}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 when the recipe, the data or the command line is at fault."""
    options = parse_arguments(arguments)
    try:
        return run(options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS


if __name__ == "__main__":
    sys.exit(main())
