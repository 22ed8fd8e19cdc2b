"""Where a run starts, and which recipe a resumed run uses."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model_zoo.common.checkpoint.files import (
    CHECKPOINTS_FOLDER,
    Position,
    newest_checkpoint,
    read_position,
    remove_checkpoints,
    steps_in,
)
from model_zoo.common.errors import CheckpointError, RecipeError
from model_zoo.common.recipe import Recipe, apply_override, load_recipe, parse_recipe
from model_zoo.common.run_options import RunOptions


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Converts a recipe to JSON values: mappings, lists, strings and numbers."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return content


def recipe_with_overrides(stored: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    """Applies command-line overrides to a stored recipe.

    Args:
        stored: the result of `recipe_to_json`.
        overrides: `dotted.key=value` texts.

    Returns:
        The recipe.

    Raises:
        RecipeError: the recipe or an override is not accepted.
    """
    content = copy.deepcopy(dict(stored))
    for override in overrides:
        apply_override(content, override)
    return parse_recipe(content)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Compares two recipes, except for their number of epochs.

    Args:
        before: the recipe of a run.
        now: another recipe.

    Returns:
        One text per changed key, such as "optimizer.damping was 0.03 and is 0.1".
    """
    old, new = (
        {key: repr(value) for key, value in _flatten(recipe_to_json(recipe)).items()}
        for recipe in (before, now)
    )
    return [
        f"{key} was {old.get(key, 'absent')} and is {new.get(key, 'absent')}"
        for key in {**old, **new}
        if key != "epochs" and old.get(key) != new.get(key)
    ]


def resumed_recipe(run: Path, position: Position, path: Path | None, overrides: Sequence[str]) -> Recipe:
    """The recipe of a resumed run: the stored one, possibly with another number of epochs.

    Args:
        run: the run's folder.
        position: the position in its checkpoint.
        path: the recipe named on the command line; None for the stored one.
        overrides: `dotted.key=value` texts.

    Returns:
        The recipe.

    Raises:
        RecipeError: a recipe or an override is not accepted.
        CheckpointError: the recipe differs from the run's, or has fewer epochs than are complete.
    """
    try:
        before = parse_recipe(position.recipe)
    except RecipeError as error:
        raise CheckpointError(f"run {run} has a recipe that this version does not accept: {error}") from error
    now = recipe_with_overrides(position.recipe, overrides) if path is None else load_recipe(path, overrides)
    changes = differences(before, now)
    if changes:
        raise CheckpointError(
            f"run {run} can't be resumed with another recipe: {'; '.join(changes)}. Only epochs may change."
        )
    done = position.epoch + (position.step_of_epoch > 0)
    if now.epochs < done:
        raise CheckpointError(
            f"run {run} can't be resumed for {now.epochs} epochs: it has reached epoch {done}."
        )
    return now


def starting_checkpoint(options: RunOptions) -> Path | None:
    """The checkpoint that a process starts from.

    Args:
        options: the run options.

    Returns:
        Its folder; None for a new run.

    Raises:
        CheckpointError: there is no checkpoint to resume from, another number of processes wrote the
            checkpoints, or a new run would write to a folder that already has checkpoints.
    """
    if not options.resume:
        if (options.output / CHECKPOINTS_FOLDER).exists():
            raise CheckpointError(
                f"{options.output} holds the checkpoints of a run: --resume {options.output} continues it, "
                "another --output starts a new one."
            )
        return None
    checkpoint = newest_checkpoint(options.output, options.shard)
    folder = checkpoint.parent
    # Ranks are killed one by one: some may have written a checkpoint that others lack.
    newer = [step for step in steps_in(folder) if step > read_position(checkpoint).step]
    remove_checkpoints(folder, newer)
    return checkpoint
