"""Shared by the zoo's commands: the arguments for a trained network, and how a command ends."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path
from typing import Callable

from model_zoo.common.errors import Interrupted, RunFailedError, UsageError
from model_zoo.common.interruption import SIGNAL_STATUS, StopSignals
from model_zoo.common.zoo_recipes import recipe_argument

FAILURE_STATUS = 1
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
        type=recipe_argument,
        metavar="RECIPE",
        help="the recipe of the network: a YAML file, or a name that `ms-kfac-zoo recipes` lists (default: "
        "the one stored next to the network)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipe"
    )
    parser.add_argument(
        "--device", choices=["CPU", "GPU", "Ascend"], default="CPU", help="where to run (default: CPU)"
    )


def describe_os_error(error: OSError) -> str:
    """Formats an error of the operating system as half a sentence, such as "a/b: Permission denied"."""
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    reason = error.strerror or str(error) or type(error).__name__
    return f"{names}: {reason}" if names else reason


def run_command(command: Callable[[StopSignals], int], default_signals: bool = False) -> int:
    """Runs a command and prints its errors as one sentence.

    Args:
        command: called with the signals that stop it; returns the exit status.
        default_signals: whether signals keep their default actions. Default: False.

    Returns:
        The exit status: the command's; 2 for a usage error and for an error of the operating system before
        training; 1 for an error during training; 130 after SIGINT and 143 after SIGTERM.
    """
    signals = StopSignals()
    try:
        with contextlib.nullcontext() if default_signals else signals:
            return command(signals)
    except UsageError as error:
        sentence, status = str(error), USAGE_STATUS
    except RunFailedError as error:
        sentence, status = str(error), FAILURE_STATUS
    except OSError as error:
        sentence, status = f"{describe_os_error(error)}.", USAGE_STATUS
    except Interrupted as error:
        sentence, status = str(error), SIGNAL_STATUS + error.signum
    except KeyboardInterrupt:
        sentence, status = "stopped by SIGINT.", SIGNAL_STATUS + signal.SIGINT
    print(f"error: {sentence}", file=sys.stderr)
    return status
