"""Evaluates a checkpoint: python -m model_zoo.evaluate --checkpoint runs/FOLDER."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.checkpoint.trained import find_trained
from model_zoo.common.command_line import add_trained_network, tell
from model_zoo.common.errors import UsageError


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.evaluate", description="Evaluates a checkpoint of the zoo."
    )
    add_trained_network(parser)
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of the recipe's data; the digits need none"
    )
    parser.add_argument(
        "--split", choices=["train", "test"], default="test", help="which images (default: test)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 when the recipe, the data or the checkpoint is at fault."""
    options = parse_arguments(arguments)
    try:
        recipe, file = find_trained(options.checkpoint, options.recipe, options.set)

        # Only now: MindSpore takes seconds to import, and a mistake in a recipe should be told at once.
        from model_zoo.common.evaluation import evaluate_checkpoint

        results = evaluate_checkpoint(recipe, file, options.data_dir, options.split, options.device)
    except UsageError as error:
        return tell(error)
    print(
        "  ".join(f"{options.split} {name.replace('_', ' ')} {value:.4f}" for name, value in results.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
