"""Damaged checkpoints: each damage is told, and the newest whole checkpoint is used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Callable

import pytest

from model_zoo.common.checkpoint import manifest
from model_zoo.common.checkpoint.files import (
    Position,
    checkpoint_at,
    checkpoints_folder,
    clear_newer,
    new_checkpoint,
    newest_checkpoint,
    steps_in,
)
from model_zoo.common.checkpoint.find_checkpoint import network_file, stored_recipe
from model_zoo.common.checkpoint.manifest import MANIFEST_FILE, check_file, damage, write_manifest
from model_zoo.common.checkpoint.resume import Start, refuse_occupied, start_of, stored_run
from model_zoo.common.curves import read_metrics
from model_zoo.common.data.shards import Shard
from model_zoo.common.durable_files import replacing, write_text
from model_zoo.common.errors import CheckpointError, NoCheckpointError, RecipeError
from model_zoo.common.run_options import RunOptions

WRITTEN = {
    "state.ckpt": bytes(range(256)) * 9,
    "network.ckpt": bytes(range(256)) * 5,
    "metrics.jsonl": b'{"kind": "step"}\n' * 3,
}
FILES = [*WRITTEN, "position.json", MANIFEST_FILE]


def write(run: Path, step: int, shard: Shard = Shard()) -> Path:  # noqa: B008
    position = Position(0, step, step, 100, shard.size, {}, {"checkpoint_every": "10steps"}, {"epochs": 3})
    folder = checkpoints_folder(run, shard)
    with new_checkpoint(folder, position) as unfinished:
        for name, content in WRITTEN.items():
            (unfinished / name).write_bytes(content)
    return checkpoint_at(folder, step)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def flip_first(path: Path) -> None:
    flip(path, 0)


def flip_middle(path: Path) -> None:
    flip(path, 4 * path.stat().st_size + 3)


def flip_last(path: Path) -> None:
    flip(path, 8 * path.stat().st_size - 1)


def cut_one_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_all(path: Path) -> None:
    os.truncate(path, 0)


def fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[Callable[[Path], None]] = [
    flip_first,
    flip_middle,
    flip_last,
    cut_one_byte,
    cut_half,
    cut_all,
    fill_with_zeros,
    Path.unlink,
    make_folder,
]


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", FILES)
def test_the_newest_whole_checkpoint_is_used(
    name: str, harm: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newest = write(tmp_path, 10), write(tmp_path, 20)
    assert start_of(RunOptions("run", None, tmp_path, resume=True), list).checkpoint == newest
    assert capsys.readouterr().out == ""
    harm(newest / name)
    assert start_of(RunOptions("run", None, tmp_path, resume=True), list).checkpoint == older
    told = rf"checkpoint {re.escape(str(newest))} (has a damaged|has an unreadable|lacks) {name}"
    assert re.match(told, capsys.readouterr().out)
    # Without reading the large files, which is done once.
    assert stored_run(tmp_path).step == (10 if name in ("position.json", MANIFEST_FILE) else 20)
    # A resumed run writes the checkpoint of that step again; the damaged one is kept under another name.
    clear_newer(older)
    assert steps_in(newest.parent) == [10]
    assert (newest.parent / "damaged_step_00000020").is_dir()
    write(tmp_path, 20)


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    write_manifest(tmp_path, ["a"])
    path = tmp_path / MANIFEST_FILE
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        assert damage(tmp_path) is not None, bit
        flip(path, bit)
    assert damage(tmp_path) is None


def test_coreutils_read_the_manifest(tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("needs sha256sum")
    checkpoint = write(tmp_path, 10)
    command = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST_FILE]
    assert subprocess.run(command, cwd=checkpoint, check=False).returncode == 0
    flip_middle(checkpoint / "state.ckpt")
    assert subprocess.run(command, cwd=checkpoint, check=False, capture_output=True).returncode == 1


def test_a_run_without_a_whole_checkpoint_is_refused_and_stays(tmp_path: Path) -> None:
    for step, name in ((10, "state.ckpt"), (20, "network.ckpt")):
        flip_last(write(tmp_path, step) / name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        CheckpointError, match=r"has no whole checkpoint: .*20 has a.*network.*10 has a.*state"
    ):
        newest_checkpoint(tmp_path, Shard())
    assert sorted(tmp_path.rglob("*")) == before


class Ranks:
    """Processes that resume a run together, as threads."""

    def __init__(self, run: Path, size: int) -> None:
        self.run, self.size = run, size
        self.read: list[tuple[str, Path]] = []
        self._barrier = threading.Barrier(size, timeout=30)
        self._values: list[list[float]] = []

    def _sum(self, values: list[float]) -> list[float]:
        self._values.append(values)
        self._barrier.wait()
        total = [sum(column) for column in zip(*self._values[-self.size :])]
        self._barrier.wait()
        return total

    def resume(self) -> list[Path | str]:
        """The checkpoint that each rank takes, or its refusal; lists the files that each has read."""

        def read(path: Path) -> str:
            self.read.append((threading.current_thread().name, path))
            return checksum(path)

        def start(rank: int) -> Path | str:
            threading.current_thread().name = f"rank_{rank}"
            shard = Shard(rank, self.size)
            try:
                stored_run(self.run)
                start = start_of(RunOptions("run", None, self.run, resume=True, shard=shard), self._sum)
            except CheckpointError as error:
                return str(error)
            assert start.checkpoint is not None
            return start.checkpoint

        checksum = manifest._checksum
        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(self.size) as threads:
            patch.setattr(manifest, "_checksum", read)
            return list(threads.map(start, range(self.size)))


@pytest.mark.parametrize("size", [1, 3])
def test_a_resume_reads_the_large_files_of_its_own_rank_once(size: int, tmp_path: Path) -> None:
    ranks = Ranks(tmp_path, size)
    newest = [[write(tmp_path, step, Shard(rank, size)) for step in (10, 20)][1] for rank in range(size)]
    assert ranks.resume() == newest
    large = [(name, path) for name, path in ranks.read if path.name in WRITTEN]
    own = [(f"rank_{rank}", path / name) for rank, path in enumerate(newest) for name in WRITTEN]
    assert sorted(large) == sorted(own)


def test_damage_on_one_rank_counts_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = [[write(tmp_path, step, Shard(rank, 2)) for rank in range(2)] for step in (10, 20)]
    flip_first(written[1][1] / "state.ckpt")
    assert Ranks(tmp_path, 2).resume() == written[0]
    # Rank 0, the one that is heard, tells what is wrong on the other.
    told = f"checkpoint {written[1][1]} has a damaged state.ckpt: it is passed over\n"
    assert capsys.readouterr().out == 2 * told
    for checkpoint in written[0]:
        clear_newer(checkpoint)
    assert [steps_in(checkpoints_folder(tmp_path, Shard(rank, 2))) for rank in range(2)] == [[10], [10]]


def test_every_rank_refuses_a_run_without_a_whole_checkpoint(tmp_path: Path) -> None:
    written = [[write(tmp_path, step, Shard(rank, 2)) for rank in range(2)] for step in (10, 20)]
    flip_first(written[1][1] / "state.ckpt")
    flip_first(written[0][0] / "network.ckpt")
    wrong = f"{written[1][1]} has a damaged state.ckpt; {written[0][0]} has a damaged network.ckpt"
    assert Ranks(tmp_path, 2).resume() == [f"run {tmp_path} has no whole checkpoint: {wrong}."] * 2


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_in_its_first_checkpoint_starts_and_resumes(
    ranks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RunOptions("run", None, tmp_path, shard=Shard(0, ranks))
    for rank in range(ranks):
        checkpoints_folder(tmp_path, Shard(rank, ranks)).mkdir(parents=True)
    folder = checkpoints_folder(tmp_path, options.shard)
    (folder / "unfinished_00000010").mkdir()
    (folder / "unfinished_00000010" / "state.ckpt").write_bytes(b"half")
    content = {"recipe": {"epochs": 3}, "options": {"checkpoint_every": "10steps"}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert start_of(options, list) == Start()
    assert "ended without a checkpoint: it starts again" in capsys.readouterr().out
    resume = RunOptions("run", None, tmp_path, resume=True, shard=options.shard)
    assert start_of(resume, list) == Start()
    assert "had not finished a checkpoint: it starts from the beginning" in capsys.readouterr().out
    position = stored_run(tmp_path)
    assert (position.step, position.recipe, position.ranks) == (0, {"epochs": 3}, ranks)


@pytest.mark.parametrize(
    "content", [None, "", '{"recipe": {', "[]", '{"recipe": {}, "options": {"checkpoint_every": null}}']
)
def test_without_a_beginning_there_is_nothing_to_resume(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match="has no checkpoint to resume from") as refused:
        stored_run(tmp_path)
    assert not isinstance(refused.value, NoCheckpointError)


def test_side_files_play_no_part_in_a_resume(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 10)
    for content in (None, b"", b'{"kind": "st', b"\0" * 50):
        for name in ("run.json", "metrics.jsonl"):
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_bytes(content)
        assert start_of(RunOptions("run", None, tmp_path, resume=True), list).checkpoint == checkpoint
        assert asdict(stored_run(tmp_path))["recipe"] == {"epochs": 3}


def test_a_cut_line_of_the_metrics_log_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step"')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_other_runs_are_not_overwritten(tmp_path: Path) -> None:
    refuse_occupied(tmp_path / "absent")
    refuse_occupied(tmp_path)
    (tmp_path / "network.ckpt").write_bytes(b"trained")
    with pytest.raises(CheckpointError, match="holds a finished run: --overwrite replaces it, another --out"):
        start_of(RunOptions("run", None, tmp_path), list)
    assert start_of(RunOptions("run", None, tmp_path, overwrite=True), list) == Start()
    write(tmp_path, 10)
    with pytest.raises(CheckpointError, match=r"--resume .* continues it, --overwrite replaces it, another"):
        start_of(RunOptions("run", None, tmp_path), list)
    assert (tmp_path / "network.ckpt").read_bytes() == b"trained"


@pytest.mark.parametrize("name", ["network.ckpt", "run.json"])
def test_a_damaged_end_of_a_run_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "network.ckpt").write_bytes(b"weights")
    (tmp_path / "run.json").write_text('{"recipe": {"epochs": 3}}')
    write_manifest(tmp_path, ["network.ckpt", "run.json"])
    check_file(network_file(tmp_path))
    flip_last(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"has a damaged {name}\."):
        stored_recipe(network_file(tmp_path), [])


def test_a_cut_run_description_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"recipe": {')
    with pytest.raises(RecipeError, match=r"--recipe is needed: .*run\.json is damaged\."):
        stored_recipe(tmp_path / "network.ckpt", [])


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    # What a killed process left.
    (tmp_path / ".new-file.txt").mkdir()
    (tmp_path / ".new-file.txt" / "file.tmp").write_text("left")
    with pytest.raises(OSError, match="full"), replacing(path) as new:
        new.write_text("half")
        raise OSError("full")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
