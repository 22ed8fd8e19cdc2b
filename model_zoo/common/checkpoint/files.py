"""Checkpoint files: one folder per checkpoint, renamed into place when complete.

In a run's folder:

    checkpoints/step_00000440/state.ckpt       every Parameter of the training cell
    checkpoints/step_00000440/network.ckpt     the network alone (averaged weights, if kept)
    checkpoints/step_00000440/position.json    the position of the run, and its recipe
    checkpoints/step_00000440/metrics.jsonl    the metrics log so far (rank 0)
    checkpoints/step_00000440/manifest.sha256  the checksums of these files

With several ranks, each rank writes below checkpoints/rank_0, checkpoints/rank_1 and so on.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable

from model_zoo.common.checkpoint.manifest import damage, write_manifest
from model_zoo.common.data.shards import Shard
from model_zoo.common.durable_files import sync, write_text
from model_zoo.common.errors import CheckpointError, NoCheckpointError

CHECKPOINTS_FOLDER = "checkpoints"
STATE_FILE = "state.ckpt"
NETWORK_FILE = "network.ckpt"
POSITION_FILE = "position.json"
# In the run's folder, too.
METRICS_FILE = "metrics.jsonl"
# In the run's folder alone.
RUN_FILE = "run.json"

_RANK = "rank_"
_PREFIX = "step_"
_UNFINISHED = "unfinished_"
_DAMAGED = "damaged_"


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
        resumed_after: the steps after which the run was resumed.
    """

    epoch: int
    step_of_epoch: int
    step: int
    steps_per_epoch: int
    ranks: int
    journal: dict[str, Any]
    options: dict[str, Any]
    recipe: dict[str, Any]
    resumed_after: list[int] = field(default_factory=list)


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


def _say_nothing(sentence: str) -> None:
    """The default of `newest_checkpoint`."""


def _problems(checkpoints: Sequence[Path]) -> list[str]:
    """The default of `newest_checkpoint`: reads the files of all processes."""
    return [f"{path} {problem}" for path in checkpoints if (problem := damage(path)) is not None]


def newest_checkpoint(
    run: Path,
    shard: Shard,
    report: Callable[[str], None] = _say_nothing,
    problems_of: Callable[[Sequence[Path]], list[str]] = _problems,
) -> Path:
    """The newest checkpoint of a run that every process has finished and whose files are undamaged.

    Args:
        run: the run's folder.
        shard: the calling process.
        report: called with a sentence for each newer checkpoint that is damaged. Default: none is.
        problems_of: gets the folder of each process, and tells what is damaged, the same on all processes.
            Default: reads all of their files.

    Returns:
        The folder of that checkpoint for this process.

    Raises:
        NoCheckpointError: no checkpoint is finished.
        CheckpointError: the run does not exist, all of its checkpoints are damaged, or it was trained by
            another number of processes.
    """
    if not run.is_dir():
        raise CheckpointError(f"run {run} does not exist.")
    require_ranks(run, shard.size)
    folders = [checkpoints_folder(run, Shard(rank, shard.size)) for rank in range(shard.size)]
    common = set.intersection(*(set(steps_in(folder)) for folder in folders))
    if not common:
        raise NoCheckpointError(
            f"run {run} has no checkpoint to resume from; train with --checkpoint-every to write them."
        )
    problems: list[str] = []
    for step in sorted(common, reverse=True):
        checkpoints = [checkpoint_at(folder, step) for folder in folders]
        found = problems_of(checkpoints)
        if not found:
            for problem in problems:
                report(f"checkpoint {problem}: it is passed over")
            return checkpoints[shard.rank]
        problems += found
    raise CheckpointError(f"run {run} has no whole checkpoint: {'; '.join(problems)}.")


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
    write_text(unfinished / POSITION_FILE, json.dumps(asdict(position), indent=2) + "\n")
    for path in unfinished.iterdir():
        sync(path)
    write_manifest(unfinished, [path.name for path in unfinished.iterdir()])
    unfinished.rename(checkpoint_at(folder, position.step))
    sync(folder)


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


def clear_newer(checkpoint: Path) -> None:
    """Makes room for the checkpoints that a resumed process writes.

    Newer checkpoints that other processes lack are removed, because ranks are killed one by one. Damaged ones
    are renamed.

    Args:
        checkpoint: the checkpoint that the process has resumed from.
    """
    folder, resumed = checkpoint.parent, int(checkpoint.name[len(_PREFIX) :])
    for step in [step for step in steps_in(folder) if step > resumed]:
        path = checkpoint_at(folder, step)
        if damage(path) is None:
            remove_checkpoints(folder, [step])
        else:
            aside = path.with_name(f"{_DAMAGED}{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def remove_all_checkpoints(run: Path) -> None:
    """Removes the checkpoints of all processes, finished or not.

    Args:
        run: the run's folder.
    """
    folder = run / CHECKPOINTS_FOLDER
    for part in (folder, *folder.glob(f"{_RANK}*")):
        remove_checkpoints(part, steps_in(part))
    if folder.is_dir():
        shutil.rmtree(folder)
