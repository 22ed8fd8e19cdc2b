"""Exports a network as MindIR: ms-kfac-zoo export --checkpoint runs/FOLDER --output net.mindir."""

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
        prog="ms-kfac-zoo export",
        description="Exports a trained network of the zoo as MindIR, without taps and optimizer.",
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the .mindir file to write"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="batch size of the exported network (default: 1)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.batch_size < 1:
        parser.error("--batch-size must be at least 1")
    if parsed.output.suffix != ".mindir":
        parser.error("--output must end in .mindir")
    return parsed


def export(options: argparse.Namespace) -> int:
    """Exports a network and prints its input shape."""
    recipe, file = find_checkpoint(options.checkpoint, options.recipe, options.set)

    # Imported late, because importing MindSpore takes seconds and a recipe error should appear at once.
    from model_zoo.common.export import export_network

    shape = export_network(recipe, file, options.output, options.batch_size, options.device)
    print(f"{options.output}: {recipe.network.name} from {file}, for images of shape {shape}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 2 for a wrong recipe, checkpoint or command line."""
    options = parse_arguments(arguments)
    return run_command(lambda _: export(options))


if __name__ == "__main__":
    sys.exit(main())
