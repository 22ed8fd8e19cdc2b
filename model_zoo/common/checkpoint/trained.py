"""Finds a trained network, and the recipe it was trained by, from what the command line names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.files import NETWORK_FILE, POSITION_FILE, newest_checkpoint, ranks_of
from model_zoo.common.checkpoint.resume import changed
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError, RecipeError
from model_zoo.common.recipe import Recipe, load_recipe

# run.json and position.json both hold it under this key.
_RECIPE = "recipe"
_RUN_FILE = "run.json"


def network_file(path: Path) -> Path:
    """The file that holds a trained network.

    Args:
        path: such a file; a checkpoint's folder; or a run's folder, which stands for the network that the run
            ended with, and before its end for that of the newest checkpoint of its first process.

    Returns:
        The file.

    Raises:
        CheckpointError: there is nothing under that name, or a folder holds no checkpoint.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist.")
    if (path / NETWORK_FILE).is_file():
        return path / NETWORK_FILE
    if (path / POSITION_FILE).is_file():
        raise CheckpointError(f"checkpoint {path} lacks {NETWORK_FILE}.")
    return newest_checkpoint(path, Shard(0, ranks_of(path))) / NETWORK_FILE


def recipe_of(file: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe that is stored beside a trained network.

    Args:
        file: what `network_file` returned.
        overrides: `dotted.key=value` texts.

    Returns:
        The recipe.

    Raises:
        RecipeError: none is stored, or the recipe or an override is not accepted.
    """
    for name in (POSITION_FILE, _RUN_FILE):
        stored = file.parent / name
        if stored.is_file():
            content: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
            return changed(content[_RECIPE], overrides)
    raise RecipeError(f"--recipe is needed: neither {POSITION_FILE} nor {_RUN_FILE} is beside {file}.")


def find_trained(checkpoint: Path, path: Path | None, overrides: Sequence[str]) -> tuple[Recipe, Path]:
    """A trained network's recipe and file; mistakes in a recipe that is named are told first.

    Args:
        checkpoint: as of `network_file`.
        path: the recipe that the command line names; None for the one that is stored beside the network.
        overrides: as of `recipe_of`.

    Returns:
        The recipe and the file.

    Raises:
        RecipeError: as of `recipe_of`.
        CheckpointError: as of `network_file`.
    """
    if path is not None:
        return load_recipe(path, overrides), network_file(checkpoint)
    file = network_file(checkpoint)
    return recipe_of(file, overrides), file
