"""Texts: files are split by name, windows are seeded and skippable, and what is missing is refused."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_zoo.common.data import pipelines, standard_library
from model_zoo.common.data.sampler import window_starts
from model_zoo.common.data.shards import Shard
from model_zoo.common.data.text import TextDataSet
from model_zoo.common.errors import DataError
from model_zoo.common.options.data import TextWindows
from model_zoo.train import main
from tests.model_zoo.synthetic_data import ROOT

OPTIONS = TextWindows(
    "stdlib", 4, window=5, epoch_windows=22, evaluation_batch_size=3, evaluation_windows=None
)


def text(length: int = 300, options: TextWindows = OPTIONS) -> TextDataSet:
    """Bytes that tell their place, up to 256."""
    numbers = (np.arange(length) % 256).astype(np.uint8)
    return TextDataSet("made", options, numbers, numbers[:30], ("a.py",), ("b.py",))


def batches(dataset: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [tuple(rows) for rows in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)]


def training(data: TextDataSet, **where: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return batches(pipelines.training_batches(data, data.options, **{"seed": 5, "epoch": 0, **where}))


def stacked(loaded: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.concatenate([ids for ids, _ in loaded])


def test_the_library_of_this_python_is_split_by_file() -> None:
    data = standard_library.load(OPTIONS, None)
    again = standard_library.load(OPTIONS, None)
    assert data.describe() == again.describe()
    assert set(data.train_files).isdisjoint(data.test_files)
    assert list(data.train_files) == sorted(data.train_files)
    assert {"argparse.py", "os.py"} <= set(data.train_files)
    # One file in ten, of more than a hundred.
    share = len(data.test_files) / (len(data.train_files) + len(data.test_files))
    assert 0.03 < share < 0.2
    folder = Path(sysconfig.get_path("stdlib"))
    for split, files in (("train", data.train_files), ("test", data.test_files)):
        content = b"".join((folder / name).read_bytes() + b"\0" for name in files)
        assert data.bytes_of(split).tobytes() == content
    assert not any(name.startswith(("_sysconfigdata", "sitecustomize")) for name in data.train_files)


def test_a_file_keeps_its_split_whatever_else_is_there(sources: Path) -> None:
    before = standard_library.load(OPTIONS, sources)
    assert (before.train_files, before.test_files) == (("abc.py", "ast.py"), ("random.py",))
    for name in ("aaa.py", "zzz.py", "sitecustomize.py", "_sysconfigdata_x.py", "notes.txt"):
        (sources / name).write_text("pass\n")
    after = standard_library.load(OPTIONS, sources)
    assert set(after.train_files) | set(after.test_files) == {
        *before.train_files,
        *before.test_files,
        "aaa.py",
        "zzz.py",
    }
    assert set(before.train_files) <= set(after.train_files)
    assert set(before.test_files) <= set(after.test_files)
    assert after.describe()["sha256"] != before.describe()["sha256"]


def test_targets_are_the_next_bytes() -> None:
    for ids, targets in training(text()):
        assert ids.shape == targets.shape == (4, 5)
        assert ids.dtype == targets.dtype == np.int32
        np.testing.assert_array_equal(targets, (ids + 1) % 256)


def test_an_epoch_has_its_number_of_whole_batches() -> None:
    pipeline = pipelines.training_batches(text(), OPTIONS, seed=5, epoch=0)
    assert (pipeline.get_dataset_size(), pipeline.get_batch_size()) == (5, 4)
    assert len(batches(pipeline)) == 5


def test_seed_and_epoch_alone_decide_the_windows() -> None:
    first = stacked(training(text(), seed=5, epoch=2))
    np.testing.assert_array_equal(first, stacked(training(text(), seed=5, epoch=2)))
    for other in ({"seed": 6, "epoch": 2}, {"seed": 5, "epoch": 3}):
        assert not np.array_equal(first, stacked(training(text(), **other)))
    np.testing.assert_array_equal(first[12:], stacked(training(text(), seed=5, epoch=2, skip=3)))
    parts = [training(text(), seed=5, epoch=2, shard=Shard(rank, 2)) for rank in range(2)]
    shared = [np.concatenate([ids for ids, _ in ranks]) for ranks in zip(*parts)]
    np.testing.assert_array_equal(first, np.concatenate(shared))


def test_windows_start_everywhere() -> None:
    starts = window_starts(20_000, 10, seed=1, epoch=0)
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    # Five standard deviations of a count of 20,000 draws of probability 1/10.
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(20_000 * 0.09)
    data = text(OPTIONS.window + 1)
    np.testing.assert_array_equal(stacked(training(data))[0], np.arange(5))


def test_an_evaluation_reads_the_split_in_order() -> None:
    data = text()
    loaded = batches(pipelines.evaluation_batches(data, "test", OPTIONS))
    assert [len(ids) for ids, _ in loaded] == [3, 2]
    # 30 bytes: five windows, because a sixth would have no byte after it.
    np.testing.assert_array_equal(stacked(loaded).ravel(), np.arange(25))
    np.testing.assert_array_equal(loaded[-1][1][-1], np.arange(21, 26))


def test_an_evaluation_of_fewer_windows_spaces_them_evenly() -> None:
    options = TextWindows("stdlib", 4, window=5, evaluation_windows=3)
    starts = text(options=options).evaluation_starts("test")
    np.testing.assert_array_equal(starts, [0, 5, 15])
    many = TextWindows("stdlib", 4, window=5, evaluation_windows=99)
    np.testing.assert_array_equal(text(options=many).evaluation_starts("test"), [0, 5, 10, 15, 20])


def test_missing_sources_are_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "model_zoo/gpt/gpt_stdlib_sgdm.yaml")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert main(["--recipe", recipe, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: Python's standard library was not found: {tmp_path} has 0 *.py files to train on and 0 to "
        "test; --data-dir names another folder of Python sources.\n"
    )
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"made has 5 train bytes, too few .* \(data\.window 5\)"):
        text(5)
    with pytest.raises(DataError, match=r"made has 22 windows per epoch .* \(data\.batch_size 23\)"):
        pipelines.training_batches(text(), TextWindows("stdlib", 23, window=5), seed=1, epoch=0)
    with pytest.raises(DataError, match="made has 5 windows to evaluate, fewer than 6 processes"):
        pipelines.evaluation_batches(text(), "test", OPTIONS, shard=Shard(0, 6))
