"""The recipes that come with the zoo, by name: a recipe's path in the zoo without its suffix."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

ZOO = Path(__file__).resolve().parents[1]


def recipe_names() -> list[str]:
    """The names of all recipes, such as "resnet/resnet20_digits_kfac"."""
    return sorted(path.relative_to(ZOO).with_suffix("").as_posix() for path in ZOO.rglob("*.yaml"))


def recipe_argument(text: str) -> Path:
    """Reads the value of --recipe. A path with a suffix is a file, a path without one is a recipe of the zoo.

    Args:
        text: the value.

    Returns:
        The recipe's file.

    Raises:
        argparse.ArgumentTypeError: the zoo has no recipe of this name.
    """
    path = Path(text)
    if path.suffix:
        return path
    names = recipe_names()
    if text in names:
        return ZOO / f"{text}.yaml"
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)
    raise argparse.ArgumentTypeError(
        f"must be a .yaml file or a name that `ms-kfac-zoo recipes` lists, such as {near[0]}; got {text}"
    )
