"""Where a run starts, and which recipe a resumed run uses."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable

from model_zoo.common.checkpoint.files import (
    METRICS_FILE,
    NETWORK_FILE,
    POSITION_FILE,
    RUN_FILE,
    Position,
    checkpoints_folder,
    newest_checkpoint,
    ranks_of,
    read_position,
    steps_in,
)
from model_zoo.common.checkpoint.manifest import damage
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError, NoCheckpointError, RecipeError
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


def refuse_occupied(output: Path) -> None:
    """Checks that a new run would not overwrite another.

    A run that has ended without a checkpoint and without a network has nothing to lose.

    Args:
        output: the output folder, which may not exist.

    Raises:
        CheckpointError: the folder holds a finished run, or checkpoints.
    """
    ranks = ranks_of(output)
    if any(steps_in(checkpoints_folder(output, Shard(rank, ranks))) for rank in range(ranks)):
        raise CheckpointError(
            f"{output} holds the checkpoints of a run: --resume {output} continues it, --overwrite replaces "
            "it, another --output starts a new one."
        )
    if (output / NETWORK_FILE).exists():
        raise CheckpointError(
            f"{output} holds a finished run: --overwrite replaces it, another --output starts a new one."
        )


def _damaged_position(checkpoints: Sequence[Path]) -> list[str]:
    problem = damage(checkpoints[0], POSITION_FILE)
    return [] if problem is None else [f"{checkpoints[0]} {problem}"]


def stored_run(run: Path) -> Position:
    """The recipe, the options and the position of a run, as far as they are known before it is resumed.

    Reads one small file of a checkpoint. :func:`start_of` reads the others, and may find them damaged.

    Args:
        run: the run's folder.

    Returns:
        The newest undamaged position. The beginning, from run.json, for a run that writes checkpoints and
        was killed before the first was finished.

    Raises:
        CheckpointError: as in `newest_checkpoint`; also if the run has no checkpoint and run.json does not
            tell that it writes any.
    """
    ranks = ranks_of(run)
    try:
        return read_position(newest_checkpoint(run, Shard(0, ranks), problems_of=_damaged_position))
    except NoCheckpointError as nothing:
        try:
            content = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
            options, recipe = content["options"], content["recipe"]
            written = options["checkpoint_every"] is not None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            # Nothing tells how the run began.
            written = False
        if not written:
            raise CheckpointError(str(nothing)) from nothing
    return Position(0, 0, 0, 0, ranks, {}, options, recipe)


@dataclass(frozen=True)
class Start:
    """Where a process starts, with its defaults for a run that starts from the beginning.

    Attributes:
        checkpoint: the folder of the checkpoint to load.
        position: the position in it.
        metrics_log: the metrics log up to it; empty on other ranks than 0.
    """

    checkpoint: Path | None = None
    position: Position | None = None
    metrics_log: bytes = b""

    @property
    def resumed_after(self) -> list[int]:
        """The steps after which the run was resumed, this time included."""
        return [] if self.position is None else [*self.position.resumed_after, self.position.step]


def start_of(options: RunOptions, over_ranks: Callable[[list[float]], list[float]]) -> Start:
    """Finds where a process starts; a collective call if there are several.

    Each process reads its own checkpoints, and learns which ones of the others are damaged.

    Args:
        options: the run options.
        over_ranks: sums values over all processes.

    Returns:
        The start.

    Raises:
        CheckpointError: there is no checkpoint to resume from, another number of processes wrote the
            checkpoints, or a new run would overwrite another one.
    """
    shard = options.shard

    def problems_of(checkpoints: Sequence[Path]) -> list[str]:
        own = damage(checkpoints[shard.rank])
        flags = [0.0] * shard.size
        flags[shard.rank] = float(own is not None)
        damaged = [path for path, flag in zip(checkpoints, over_ranks(flags)) if flag]
        # Those of others are read after all, to tell what is wrong.
        return [f"{path} {damage(path) or 'is damaged'}" for path in damaged]

    if not options.resume:
        if not options.overwrite:
            refuse_occupied(options.output)
            if (options.output / RUN_FILE).exists():
                print(f"{options.output} holds a run that ended without a checkpoint: it starts again")
        return Start()
    try:
        checkpoint = newest_checkpoint(options.output, shard, print, problems_of)
    except NoCheckpointError:
        # Raises unless the beginning is known.
        stored_run(options.output)
        print(f"run {options.output} had not finished a checkpoint: it starts from the beginning")
        return Start()
    log = (checkpoint / METRICS_FILE).read_bytes() if shard.rank == 0 else b""
    return Start(checkpoint, read_position(checkpoint), log)


def how_to_resume(options: RunOptions) -> str:
    """Tells how a run that was stopped continues.

    Args:
        options: the run options.

    Returns:
        Half a sentence.
    """
    steps = steps_in(checkpoints_folder(options.output, options.shard))
    if steps:
        return f"--resume {options.output} continues it after step {steps[-1]:,}"
    if options.checkpoint_every is not None:
        return f"no checkpoint was finished, --resume {options.output} starts from the beginning"
    return "it can't be resumed, because it writes no checkpoints (--checkpoint-every)"
