"""The files of checkpoints: a folder each, that appears whole or not at all.

In a run's folder:

    checkpoints/step_00000440/state.ckpt       every Parameter of the training cell
    checkpoints/step_00000440/network.ckpt     the network alone, with averaged weights where there are any
    checkpoints/step_00000440/position.json    where the run stood, and its recipe

With several ranks each writes below checkpoints/rank_0, checkpoints/rank_1 and so on.
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
    """Where a run stood when a checkpoint was written.

    Attributes:
        epoch: epochs that were complete.
        step_of_epoch: steps of the next epoch that were done.
        step: steps done since the run began.
        steps_per_epoch: steps in an epoch.
        ranks: processes that trained together.
        journal: what the journal needs to go on.
        options: what the command line said of the run.
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
    """Where a process keeps its checkpoints.

    Args:
        run: the run's folder.
        shard: the process.

    Returns:
        The folder, which may not exist.
    """
    folder = run / CHECKPOINTS_FOLDER
    return folder if shard.size == 1 else folder / f"{_RANK}{shard.rank}"


def ranks_of(run: Path) -> int:
    """How many processes wrote the checkpoints of a run.

    Args:
        run: the run's folder.

    Returns:
        Their number; 1 where there are none.
    """
    return max(1, len(list((run / CHECKPOINTS_FOLDER).glob(f"{_RANK}*"))))


def steps_in(folder: Path) -> list[int]:
    """The steps of the finished checkpoints in a folder.

    Args:
        folder: what `checkpoints_folder` returned.

    Returns:
        Their steps, in order; none where there is no folder.
    """
    if not folder.is_dir():
        return []
    names = [path.name[len(_PREFIX) :] for path in folder.glob(f"{_PREFIX}*")]
    return sorted(int(name) for name in names if name.isdigit())


def checkpoint_at(folder: Path, step: int) -> Path:
    """The folder of the checkpoint that was written after `step` steps."""
    return folder / f"{_PREFIX}{step:08d}"


def newest_checkpoint(run: Path, shard: Shard) -> Path:
    """The newest checkpoint of a run that every process has finished.

    Args:
        run: the run's folder.
        shard: the process that asks.

    Returns:
        The process's own folder of that checkpoint.

    Raises:
        CheckpointError: there is no run, it has no such checkpoint, or another number of processes wrote
            them.
    """
    if not run.is_dir():
        raise CheckpointError(f"run {run} does not exist.")
    if ranks_of(run) != shard.size:
        raise CheckpointError(
            f"the checkpoints of run {run} are those of {ranks_of(run)} processes, and can't be resumed by "
            f"{shard.size}."
        )
    folders = [checkpoints_folder(run, Shard(rank, shard.size)) for rank in range(shard.size)]
    common = set.intersection(*(set(steps_in(folder)) for folder in folders))
    if not common:
        raise CheckpointError(
            f"run {run} has no checkpoint to resume from; --checkpoint-every writes them while a run trains."
        )
    return checkpoint_at(folders[shard.rank], max(common))


def read_position(checkpoint: Path) -> Position:
    """Reads where the run stood.

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
    """Writes a checkpoint: what the `with` block puts into the folder, and the position.

    A run that is killed meanwhile leaves a folder under another name, which the next checkpoint removes. What
    has its final name is on the disk.

    Args:
        folder: what `checkpoints_folder` returned; made where it does not exist.
        position: where the run stands.

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
        folder: what `checkpoints_folder` returned.
        steps: which.
    """
    for step in steps:
        path = checkpoint_at(folder, step)
        # Out of sight first: a folder that has lost some of its files is no checkpoint.
        doomed = path.with_name(f"{_UNFINISHED}{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)
