"""Evaluates a checkpoint: ms-kfac-zoo eval --checkpoint runs/FOLDER."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.checkpoint.find_checkpoint import find_checkpoint
from model_zoo.common.command_line import add_network_arguments, run_command


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="ms-kfac-zoo eval", description="Evaluates a checkpoint of the zoo."
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="folder of the recipe's data (not needed for the digits and stdlib)",
    )
    parser.add_argument(
        "--split", choices=["train", "test"], default="test", help="which images (default: test)"
    )
    return parser.parse_args(arguments)


def evaluate(options: argparse.Namespace) -> int:
    """Evaluates a checkpoint and prints its metrics."""
    recipe, file = find_checkpoint(options.checkpoint, options.recipe, options.set)

    # Imported late, because importing MindSpore takes seconds and a recipe error should appear at once.
    from model_zoo.common.evaluation import evaluate_checkpoint

    results = evaluate_checkpoint(recipe, file, options.data_dir, options.split, options.device)
    print(
        "  ".join(f"{options.split} {name.replace('_', ' ')} {value:.4f}" for name, value in results.items())
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 2 for an error in the recipe, the data or the checkpoint."""
    options = parse_arguments(arguments)
    return run_command(lambda _: evaluate(options))


if __name__ == "__main__":
    sys.exit(main())
