"""TrainingComponents shared by the zoo's commands: the arguments for a trained network, and usage errors."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model_zoo.common.errors import UsageError

USAGE_STATUS = 2


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that select a trained network and a device.

    Args:
        parser: the parser to extend with --checkpoint, --recipe, --set and --device.
    """
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH",
        help="network.ckpt of a run, the folder of a checkpoint, or the folder of a run (newest network)",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="the recipe of the network (default: the one stored next to it)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipe"
    )
    parser.add_argument(
        "--device", choices=["CPU", "GPU", "Ascend"], default="CPU", help="where to run (default: CPU)"
    )


def print_usage_error(error: UsageError) -> int:
    """Prints a usage error.

    Args:
        error: the error.

    Returns:
        The exit status.
    """
    print(f"error: {error}", file=sys.stderr)
    return USAGE_STATUS
