"""Finds a trained network and its recipe from the path given on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.files import (
    NETWORK_FILE,
    POSITION_FILE,
    RUN_FILE,
    newest_checkpoint,
    ranks_of,
)
from model_zoo.common.checkpoint.manifest import check_file
from model_zoo.common.checkpoint.resume import recipe_with_overrides
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError, RecipeError
from model_zoo.common.recipe import Recipe, load_recipe

# run.json and position.json both hold it under this key.
_RECIPE = "recipe"


def _print_to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def network_file(path: Path) -> Path:
    """The file that holds a trained network.

    Args:
        path: the file, the folder of a checkpoint, or the folder of a run. For a run, the final network is
            used if the run has ended, otherwise the newest checkpoint of rank 0.

    Returns:
        The file.

    Raises:
        CheckpointError: the path does not exist, the folder holds no checkpoint, or the file differs from
            the checksum next to it.
    """
    if path.is_file():
        check_file(path)
        return path
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {path} does not exist.")
    if (path / NETWORK_FILE).is_file():
        check_file(path / NETWORK_FILE)
        return path / NETWORK_FILE
    if (path / POSITION_FILE).is_file():
        raise CheckpointError(f"checkpoint {path} lacks {NETWORK_FILE}.")
    return newest_checkpoint(path, Shard(0, ranks_of(path)), _print_to_stderr) / NETWORK_FILE


def stored_recipe(file: Path, overrides: Sequence[str]) -> Recipe:
    """The recipe stored next to a trained network.

    Args:
        file: the result of `network_file`.
        overrides: `dotted.key=value` texts.

    Returns:
        The recipe.

    Raises:
        RecipeError: no recipe is stored, its file is damaged, or the recipe or an override is not accepted.
        CheckpointError: the stored recipe differs from its checksum.
    """
    for name in (POSITION_FILE, RUN_FILE):
        stored = file.parent / name
        if not stored.is_file():
            continue
        check_file(stored)
        try:
            content: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
            recipe = content[_RECIPE]
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(f"--recipe is needed: {stored} is damaged.") from error
        return recipe_with_overrides(recipe, overrides)
    raise RecipeError(f"--recipe is needed: there is no {POSITION_FILE} or {RUN_FILE} next to {file}.")


def find_checkpoint(checkpoint: Path, path: Path | None, overrides: Sequence[str]) -> tuple[Recipe, Path]:
    """Finds a trained network's recipe and file.

    A recipe named on the command line is checked before the checkpoint.

    Args:
        checkpoint: as in `network_file`.
        path: the recipe named on the command line; None for the stored one.
        overrides: as in `stored_recipe`.

    Returns:
        The recipe and the file.

    Raises:
        RecipeError: as in `stored_recipe`.
        CheckpointError: as in `network_file`.
    """
    if path is not None:
        return load_recipe(path, overrides), network_file(checkpoint)
    file = network_file(checkpoint)
    return stored_recipe(file, overrides), file
