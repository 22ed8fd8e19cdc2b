"""What the zoo's commands share: how they name a trained network, and how they end at a user's mistake."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from model_zoo.common.errors import UsageError

USAGE_STATUS = 2


def add_trained_network(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say which trained network, and where to run it.

    Args:
        parser: gets --checkpoint, --recipe, --set and --device.
    """
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
        "--device", choices=["CPU", "GPU", "Ascend"], default="CPU", help="where to run (default: CPU)"
    )


def tell(error: UsageError) -> int:
    """Prints a user's mistake.

    Args:
        error: the mistake.

    Returns:
        The exit status.
    """
    print(f"error: {error}", file=sys.stderr)
    return USAGE_STATUS
