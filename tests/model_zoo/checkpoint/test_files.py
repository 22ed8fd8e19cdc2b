"""Checkpoint folders: complete or absent, the newest one of all processes, and clear errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_zoo.common.checkpoint.files import (
    Position,
    checkpoint_at,
    checkpoints_folder,
    clear_newer,
    new_checkpoint,
    newest_checkpoint,
    ranks_of,
    read_position,
    remove_checkpoints,
    steps_in,
)
from model_zoo.common.checkpoint.interval import CheckpointInterval
from model_zoo.common.checkpoint.resume import Start, start_of
from model_zoo.common.data.shards import Shard
from model_zoo.common.errors import CheckpointError
from model_zoo.common.run_options import RunOptions, resumed


def position(step: int, ranks: int = 1) -> Position:
    return Position(step // 10, step % 10, step, 10, ranks, {"seconds": 1.5}, {}, {"epochs": 3})


def write(run: Path, step: int, shard: Shard = Shard()) -> None:  # noqa: B008
    with new_checkpoint(checkpoints_folder(run, shard), position(step, shard.size)) as folder:
        (folder / "state.ckpt").write_text(f"state of {step}")
        (folder / "metrics.jsonl").write_text("")


def test_checkpoint_restores_what_was_written(tmp_path: Path) -> None:
    write(tmp_path, 25)
    newest = newest_checkpoint(tmp_path, Shard())
    assert newest == tmp_path / "checkpoints" / "step_00000025"
    assert read_position(newest) == position(25)
    assert (newest / "state.ckpt").read_text() == "state of 25"


def test_unfinished_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    write(tmp_path, 10)
    folder = checkpoints_folder(tmp_path, Shard())
    with pytest.raises(KeyboardInterrupt), new_checkpoint(folder, position(20)) as unfinished:
        (unfinished / "state.ckpt").write_text("half")
        raise KeyboardInterrupt
    assert len(list(folder.iterdir())) == 2
    assert newest_checkpoint(tmp_path, Shard()).name == "step_00000010"
    write(tmp_path, 20)
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000010", "step_00000020"]


def test_steps_are_ordered_as_numbers_and_removed_by_number(tmp_path: Path) -> None:
    for step in (999_999_999, 20, 100_000_000, 3):
        write(tmp_path, step)
    folder = checkpoints_folder(tmp_path, Shard())
    assert steps_in(folder) == [3, 20, 100_000_000, 999_999_999]
    remove_checkpoints(folder, [20, 999_999_999])
    assert [path.name for path in sorted(folder.iterdir())] == ["step_00000003", "step_100000000"]


def test_processes_resume_from_the_newest_common_checkpoint(tmp_path: Path) -> None:
    for rank, steps in enumerate(([10, 20, 30], [10, 20], [20, 30])):
        for step in steps:
            write(tmp_path, step, Shard(rank, 3))
    assert ranks_of(tmp_path) == 3
    for rank in range(3):
        options = RunOptions("run", None, tmp_path, resume=True, shard=Shard(rank, 3))
        checkpoint = start_of(options, list).checkpoint
        assert checkpoint is not None
        assert checkpoint == tmp_path / "checkpoints" / f"rank_{rank}" / "step_00000020"
        clear_newer(checkpoint)
    # Otherwise, a checkpoint that only some ranks have would look newer than the next one.
    assert [steps_in(checkpoints_folder(tmp_path, Shard(rank, 3))) for rank in range(3)] == [
        [10, 20],
        [10, 20],
        [20],
    ]


@pytest.mark.parametrize(
    ("shard", "sentence"),
    [
        (Shard(0, 3), "were written by 2 processes: 3 can't resume it."),
        (Shard(), "were written by 2 processes: 1 can't resume it."),
        (Shard(1, 2), "has no checkpoint to resume from; train with --checkpoint-every"),
    ],
)
def test_resume_with_other_processes_is_refused(tmp_path: Path, shard: Shard, sentence: str) -> None:
    write(tmp_path, 10, Shard(0, 2))
    write(tmp_path, 20, Shard(1, 2))
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        newest_checkpoint(tmp_path, shard)


def test_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run .*nowhere does not exist\."):
        newest_checkpoint(tmp_path / "nowhere", Shard())
    with pytest.raises(CheckpointError, match="has no checkpoint to resume from"):
        newest_checkpoint(tmp_path, Shard())


def test_damaged_position_file_is_reported(tmp_path: Path) -> None:
    write(tmp_path, 10)
    path = checkpoint_at(checkpoints_folder(tmp_path, Shard()), 10)
    (path / "position.json").write_text('{"epoch": 1}')
    with pytest.raises(CheckpointError, match=r"step_00000010: position.json is damaged\."):
        read_position(path)
    (path / "position.json").unlink()
    with pytest.raises(CheckpointError, match="can't be read: No such file or directory"):
        read_position(path)


def test_new_run_does_not_overwrite_checkpoints(tmp_path: Path) -> None:
    assert start_of(RunOptions("run", None, tmp_path), list) == Start()
    write(tmp_path, 10)
    with pytest.raises(CheckpointError, match=f"--resume {re.escape(str(tmp_path))} continues it"):
        start_of(RunOptions("run", None, tmp_path), list)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("3", CheckpointInterval(3, "epoch")),
        ("1epoch", CheckpointInterval(1, "epoch")),
        ("20 epochs", CheckpointInterval(20, "epoch")),
        ("500steps", CheckpointInterval(500, "step")),
    ],
)
def test_checkpoint_intervals_are_parsed(text: str, interval: CheckpointInterval) -> None:
    assert CheckpointInterval.parse(text) == interval
    assert CheckpointInterval.parse(str(interval)) == interval


@pytest.mark.parametrize("text", ["", "0steps", "-1", "steps", "3days", "1.5"])
def test_invalid_checkpoint_interval_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an interval such as 2, 2epochs or 500steps, got"):
        CheckpointInterval.parse(text)


def test_checkpoints_are_due_at_multiples_of_the_interval() -> None:
    interval = CheckpointInterval(3, "step")
    assert [done for done in range(1, 8) if interval.is_due("step", done)] == [3, 6]
    assert not interval.is_due("epoch", 3)


def test_resumed_run_keeps_options_that_are_not_overridden(tmp_path: Path) -> None:
    every = CheckpointInterval(5, "step")
    options = RunOptions("run", tmp_path, tmp_path / "out", log_every=3, checkpoint_every=every, keep=7)
    same = resumed(options.stored(), tmp_path / "out", device=None, progress=False)
    assert same == RunOptions(
        "run",
        tmp_path,
        tmp_path / "out",
        log_every=3,
        checkpoint_every=every,
        keep=7,
        progress=False,
        resume=True,
    )
    other = resumed(options.stored(), tmp_path / "out", keep=1, checkpoint_every=CheckpointInterval(1))
    assert (other.keep, other.checkpoint_every, other.log_every) == (1, CheckpointInterval(1), 3)
