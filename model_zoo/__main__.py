"""The zoo's commands: ms-kfac-zoo train, eval, export, convert, plot and recipes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

# Each command's module, and what it does.
COMMANDS = {
    "train": ("train", "train a recipe, or resume a run"),
    "eval": ("evaluate", "evaluate a checkpoint"),
    "export": ("export", "export a trained network as MindIR"),
    "convert": ("convert", "convert an image folder to MindRecord"),
    "plot": ("plot", "plot runs, or write a report about them"),
    "recipes": ("recipes", "list the recipes of the zoo"),
}
# Packages by the modules that they bring.
_PACKAGES = {
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "mindspore": "mindspore",
    "ms_kfac": "ms_kfac",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


def missing_packages() -> list[str]:
    """The packages of the extra `zoo` that are not installed."""
    return [package for module, package in _PACKAGES.items() if find_spec(module) is None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command of the zoo.

    Args:
        arguments: the command's name and its arguments. Default: those of the command line.

    Returns:
        The command's exit status; 1 if packages are missing.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="ms-kfac-zoo",
        usage="ms-kfac-zoo COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="\n".join(f"{name:{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()),
        epilog="`ms-kfac-zoo COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of these names")
    # The command reads the words behind its name.
    command = parser.parse_args(words[:1]).command
    missing = missing_packages()
    if missing:
        print(f"error: the model zoo needs {', '.join(missing)}; install ms_kfac[zoo].", file=sys.stderr)
        return 1
    module, _ = COMMANDS[command]
    status: int = import_module(f"model_zoo.{module}").main(words[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
