"""Writes a network as MindIR: python -m model_zoo.export --checkpoint runs/FOLDER --output net.mindir."""

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
        prog="python -m model_zoo.export",
        description="Writes a trained network of the zoo, without taps and optimizer, as MindIR.",
    )
    add_trained_network(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .mindir to write")
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="images it takes at a time (default: 1)"
    )
    parsed = parser.parse_args(arguments)
    if parsed.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if parsed.output.suffix != ".mindir":
        parser.error("--output must end in .mindir")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 when the recipe, the checkpoint or the command line is at fault."""
    options = parse_arguments(arguments)
    try:
        recipe, file = find_trained(options.checkpoint, options.recipe, options.set)

        # Only now: MindSpore takes seconds to import, and a mistake in a recipe should be told at once.
        from model_zoo.common.export import export_network

        shape = export_network(recipe, file, options.output, options.batch_size, options.device)
    except UsageError as error:
        return tell(error)
    print(f"{options.output}: {recipe.network.name} from {file}, for images of shape {shape}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
