"""Checkpoint files: one folder per checkpoint, renamed into place when complete.

In a run's folder:

    checkpoints/step_00000440/state.ckpt       every Parameter of the training cell
    checkpoints/step_00000440/network.ckpt     the network alone (averaged weights, if kept)
    checkpoints/step_00000440/position.json    the position of the run, and its recipe

With several ranks, each rank writes below checkpoints/rank_0, checkpoints/rank_1 and so on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError

CHECKPOINTS_FOLDER = "checkpoints"
STATE_FILE = "state.ckpt"
NETWORK_FILE = "network.ckpt"
POSITION_FILE = "position.json"

_RANK = "rank_"
_PREFIX = "step_"
_UNFINISHED = "unfinished_"


@dataclass(frozen=True)
class Position:
    """The position of a run when a checkpoint was written.

    The fields are the keys of position.json.

    Attributes:
        epoch: completed epochs.
        step_of_epoch: completed steps of the next epoch.
        step: completed steps since the run began.
        steps_per_epoch: steps in an epoch.
        ranks: processes that trained together.
        journal: the state of the metrics log.
        options: the stored command-line options of the run.
        recipe: the recipe, as plain mappings and values.
    """

    epoch: int
    step_of_epoch: int
    step: int
    steps_per_epoch: int
    ranks: int
    journal: dict[str, Any]
    options: dict[str, Any]
    recipe: dict[str, Any]


def checkpoints_folder(run: Path, shard: Shard) -> Path:
    """The checkpoint folder of a process.

    Args:
        run: the run's folder.
        shard: the process.

    Returns:
        The folder, which may not exist.
    """
    folder = run / CHECKPOINTS_FOLDER
    return folder if shard.size == 1 else folder / f"{_RANK}{shard.rank}"


def ranks_of(run: Path) -> int:
    """The number of processes that wrote the checkpoints of a run.

    Args:
        run: the run's folder.

    Returns:
        Their number; 1 if there are no checkpoints.
    """
    return max(1, len(list((run / CHECKPOINTS_FOLDER).glob(f"{_RANK}*"))))


def require_ranks(run: Path, ranks: int) -> None:
    """Checks that this number of processes can resume a run.

    Args:
        run: the run's folder.
        ranks: the number of processes.

    Raises:
        CheckpointError: another number of processes wrote its checkpoints.
    """
    writers = ranks_of(run)
    if (run / CHECKPOINTS_FOLDER).exists() and writers != ranks:
        raise CheckpointError(
            f"the checkpoints of run {run} were written by {writers} processes: {ranks} can't resume it."
        )


def steps_in(folder: Path) -> list[int]:
    """The steps of the finished checkpoints in a folder.

    Args:
        folder: the result of `checkpoints_folder`.

    Returns:
        The steps in ascending order; empty if the folder does not exist.
    """
    if not folder.is_dir():
        return []
    names = [path.name[len(_PREFIX) :] for path in folder.glob(f"{_PREFIX}*")]
    return sorted(int(name) for name in names if name.isdigit())


def checkpoint_at(folder: Path, step: int) -> Path:
    """The folder of the checkpoint written after `step` steps."""
    return folder / f"{_PREFIX}{step:08d}"


def newest_checkpoint(run: Path, shard: Shard) -> Path:
    """The newest checkpoint of a run that every process has finished.

    Args:
        run: the run's folder.
        shard: the calling process.

    Returns:
        The folder of that checkpoint for this process.

    Raises:
        CheckpointError: the run does not exist, has no such checkpoint, or was trained by another number of
            processes.
    """
    if not run.is_dir():
        raise CheckpointError(f"run {run} does not exist.")
    require_ranks(run, shard.size)
    folders = [checkpoints_folder(run, Shard(rank, shard.size)) for rank in range(shard.size)]
    common = set.intersection(*(set(steps_in(folder)) for folder in folders))
    if not common:
        raise CheckpointError(
            f"run {run} has no checkpoint to resume from; train with --checkpoint-every to write them."
        )
    return checkpoint_at(folders[shard.rank], max(common))


def read_position(checkpoint: Path) -> Position:
    """Reads the position of a run.

    Args:
        checkpoint: the folder of a checkpoint.

    Returns:
        The position.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = checkpoint / POSITION_FILE
    try:
        return Position(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CheckpointError(f"checkpoint {checkpoint} can't be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint {checkpoint}: {path.name} is damaged.") from error


def _write_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def new_checkpoint(folder: Path, position: Position) -> Iterator[Path]:
    """Writes a checkpoint: the files that the `with` block creates, and the position.

    A killed run leaves an incomplete folder under a temporary name, which the next checkpoint removes. A
    folder with its final name is complete and flushed to disk.

    Args:
        folder: the result of `checkpoints_folder`; created if it does not exist.
        position: the position of the run.

    Yields:
        The folder to write `STATE_FILE` and `NETWORK_FILE` to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)
    unfinished = folder / f"{_UNFINISHED}{position.step:08d}"
    unfinished.mkdir()
    yield unfinished
    (unfinished / POSITION_FILE).write_text(json.dumps(asdict(position), indent=2) + "\n", encoding="utf-8")
    for path in unfinished.iterdir():
        _write_to_disk(path)
    unfinished.rename(checkpoint_at(folder, position.step))
    _write_to_disk(folder)


def remove_checkpoints(folder: Path, steps: Iterable[int]) -> None:
    """Removes finished checkpoints.

    Args:
        folder: the result of `checkpoints_folder`.
        steps: the steps of the checkpoints to remove.
    """
    for step in steps:
        path = checkpoint_at(folder, step)
        # Renamed first: an incomplete folder must not look like a checkpoint.
        doomed = path.with_name(f"{_UNFINISHED}{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)
