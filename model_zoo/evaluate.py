"""Evaluates a checkpoint: python -m model_zoo.evaluate --checkpoint runs/FOLDER."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.checkpoint.trained import find_trained
from model_zoo.common.errors import UsageError

USAGE_STATUS = 2


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m model_zoo.evaluate", description="Evaluates a checkpoint of the zoo."
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="network.ckpt of a run, a checkpoint's folder, or a run's folder for its newest network",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="the recipe that the network was trained by (default: the one stored beside it)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipe"
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of the recipe's data; the digits need none"
    )
    parser.add_argument(
        "--split", choices=["train", "test"], default="test", help="which images (default: test)"
    )
    parser.add_argument(
        "--device", choices=["CPU", "GPU", "Ascend"], default="CPU", help="where to run (default: CPU)"
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
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS
    print(
        "  ".join(f"{options.split} {name.replace('_', ' ')} {value:.4f}" for name, value in results.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
