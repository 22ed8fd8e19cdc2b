"""Where a run begins, and which recipe a resumed one goes on with."""

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


def plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the mappings, lists, texts and numbers that JSON has."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return content


def changed(stored: Mapping[str, Any], overrides: Sequence[str]) -> Recipe:
    """A stored recipe with the overrides of the command line.

    Args:
        stored: what `plain` gave.
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


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(before: Recipe, now: Recipe) -> list[str]:
    """What two recipes differ in, their number of epochs aside.

    Args:
        before: the recipe of a run.
        now: another recipe.

    Returns:
        A text a key, as "optimizer.damping was 0.03 and is 0.1".
    """
    old, new = ({key: repr(value) for key, value in _flat(plain(recipe)).items()} for recipe in (before, now))
    return [
        f"{key} was {old.get(key, 'not there')} and is {new.get(key, 'not there')}"
        for key in {**old, **new}
        if key != "epochs" and old.get(key) != new.get(key)
    ]


def resumed_recipe(run: Path, position: Position, path: Path | None, overrides: Sequence[str]) -> Recipe:
    """The recipe to go on with: the run's own, maybe with other epochs.

    Args:
        run: the run's folder.
        position: what its checkpoint says.
        path: the recipe that the command line names; None for the run's own.
        overrides: `dotted.key=value` texts.

    Returns:
        The recipe.

    Raises:
        RecipeError: a recipe or an override is not accepted.
        CheckpointError: the recipe is another than the run's, or has fewer epochs than are done.
    """
    try:
        before = parse_recipe(position.recipe)
    except RecipeError as error:
        raise CheckpointError(f"run {run} has a recipe that is not accepted any more: {error}") from error
    now = changed(position.recipe, overrides) if path is None else load_recipe(path, overrides)
    changes = differences(before, now)
    if changes:
        raise CheckpointError(
            f"run {run} can't be resumed with another recipe: {'; '.join(changes)}. Only epochs may change."
        )
    done = position.epoch + (position.step_of_epoch > 0)
    if now.epochs < done:
        raise CheckpointError(f"run {run} can't be resumed for {now.epochs} epochs: it is in epoch {done}.")
    return now


def where_to_begin(options: RunOptions) -> Path | None:
    """The checkpoint that a process begins from.

    Args:
        options: where and how to train.

    Returns:
        Its folder; None for a run from its beginning.

    Raises:
        CheckpointError: there is no checkpoint to resume from, another number of processes wrote them, or a
            run from its beginning would write to the folder of one that has checkpoints.
    """
    if not options.resume:
        if (options.output / CHECKPOINTS_FOLDER).exists():
            raise CheckpointError(
                f"{options.output} holds the checkpoints of a run: --resume {options.output} goes on with "
                "it, another --output begins anew."
            )
        return None
    checkpoint = newest_checkpoint(options.output, options.shard)
    folder = checkpoint.parent
    # Processes are killed one by one: some may have written a checkpoint that others lack.
    newer = [step for step in steps_in(folder) if step > read_position(checkpoint).step]
    remove_checkpoints(folder, newer)
    return checkpoint
