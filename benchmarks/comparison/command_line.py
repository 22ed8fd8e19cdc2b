"""The options that the step times and the comparison share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparison.tasks import RESULTS, TASKS, check_methods


def shared_options(program: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the shared options.

    Args:
        program: how the command is called.
        description: the text above the options.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--methods", default="", metavar="NAMES", help="separated by commas")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override the recipes"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of CIFAR-10 or MNIST")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; `methods` becomes a list of names.

    Args:
        parser: of :func:`shared_options`.
        arguments: the command line; None for that of the process.

    Returns:
        The options.
    """
    parsed = parser.parse_args(arguments)
    try:
        parsed.methods = check_methods(parsed.task, parsed.methods)
    except ValueError as error:
        parser.error(str(error))
    return parsed
