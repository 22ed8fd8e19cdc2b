"""Steps in MindSpore: their kinds, their summary, and missing time or kernels."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn

from benchmarks.gpu import numpy2, sink, training
from benchmarks.gpu.bring_up import SMALL_TASKS, in_turn, seconds_of_step
from benchmarks.gpu.record import Record, read_record
from benchmarks.gpu.training import OPTIMIZERS, MeasuredOptimizer, build_optimizer, summarize_steps
from benchmarks.step_kinds import kind_of_step

TASK = SMALL_TASKS["resnet20"]


@pytest.mark.parametrize("name", ["kfac", "smkfac"])
def test_step_kinds_match_the_optimizer(name: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    network = TASK.build()
    optimizer = build_optimizer(name, network)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer).set_train()
    steps = 11
    for images, labels in itertools.islice(in_turn(TASK.batches(2)), steps):
        step(images, labels)
    kinds = [kind_of_step(number, OPTIMIZERS[name].run_intervals) for number in range(steps)]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert optimizer.refreshes()["inverses"] == kinds.count("inverses") > 1
    assert optimizer.refreshes()["statistics"] == steps - kinds.count("ordinary")


def test_means_at_other_intervals_come_from_the_kinds() -> None:
    measured = MeasuredOptimizer("KFAC", run_intervals=(2, 4), reported_intervals=((10, 100), (1, 1)))
    # After two warm-up steps, step 2 has statistics and step 4 has inverses.
    seconds = [3.0, 1.0, 9.0, 1.0, 3.0]
    base = [0.5, 0.5, 0.5, 0.25, 0.5]
    summary = summarize_steps(seconds, base, measured)
    assert summary["steps"] == {"statistics": 2, "ordinary": 2, "inverses": 1}
    assert summary["median_seconds"] == {"statistics": 3.0, "ordinary": 1.0, "inverses": 9.0}
    assert summary["paired_ratio_quartiles"]["ordinary"] == pytest.approx([2.5, 3.0, 3.5])
    mean = (90 * 1.0 + 9 * 3.0 + 9.0) / 100
    assert summary["mean_seconds"] == pytest.approx({"10:100": mean, "1:1": 9.0})
    assert summary["mean_ratio"] == pytest.approx({"10:100": mean / 0.5, "1:1": 18.0})


def test_mean_of_missing_step_kinds_is_none() -> None:
    summary = summarize_steps(
        [1.0], [0.5], MeasuredOptimizer("KFAC", run_intervals=(3, 9), reported_intervals=((10, 100),))
    )
    assert summary["mean_seconds"] == summary["mean_ratio"] == {"10:100": None}


class Clock:
    """A clock that advances when steps are compiled or taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, compiling: dict[str, float]) -> None:
        self.now = 0.0
        self.compiling = compiling
        monkeypatch.setattr(training.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(training, "build_step", self.build)

    def build(self, name: str, task: object):
        if name not in self.compiling:
            raise RuntimeError("unsupported")
        self.now += self.compiling[name]
        return self.step

    def step(self) -> float:
        self.now += 0.1
        return 0.1


def measured(lines: list[dict]) -> list[tuple[str, str]]:
    return [(line["optimizer"], line["compared_optimizer"]) for line in lines if line["what"] == "steps"]


def test_every_optimizer_is_measured_before_the_next_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, {"momentum": 10.0, "kfac": 40.0, "smkfac": 40.0})
    record = Record(tmp_path / "part.jsonl")
    training.measure_all(record, TASK, end=120.0)
    lines = read_record(record.path)
    kinds = [line["what"] for line in lines]
    assert kinds == [*["first steps"] * 2, *["steps"] * 2, "first steps", *["steps"] * 2]
    assert measured(lines) == [(name, m) for m in ("kfac", "smkfac") for name in ("momentum", m)]
    # Pairs of 0.2 s in 14.8 s per optimizer after all compilations; a last pair may start at the end.
    rounds = [len(line["raw_seconds"]) for line in lines if line["what"] == "steps"]
    assert rounds == pytest.approx([74] * 4, abs=2)


def test_optimizer_that_would_not_compile_in_time_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, {"momentum": 10.0, "kfac": 40.0, "smkfac": 40.0})
    record = Record(tmp_path / "part.jsonl")
    training.measure_all(record, TASK, end=100.0)
    lines = read_record(record.path)
    assert measured(lines) == [("momentum", "kfac"), ("kfac", "kfac")]
    assert lines[-1] == {"what": "out of time", "before": "compiling smkfac"}


def test_compile_failure_does_not_stop_other_optimizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, {"momentum": 1.0, "smkfac": 1.0})
    record = Record(tmp_path / "part.jsonl")
    training.measure_all(record, TASK, end=100.0)
    lines = read_record(record.path)
    assert measured(lines) == [("momentum", "smkfac"), ("smkfac", "smkfac")]
    assert [line["of"] for line in lines if line["what"] == "failure"] == ["kfac"]


@pytest.mark.parametrize(("switch", "status"), [("1", 1), ("0", 0)])
def test_fallbacks_are_not_measured_as_native_kernels(
    switch: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "part.jsonl"
    arguments = ["training", "--network", "resnet20", "--record", str(path), "--dry-run"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("MS_KFAC_NATIVE", switch)
    monkeypatch.setattr(training, "is_native", lambda name: False)
    monkeypatch.setattr(training, "start", lambda record: None)
    monkeypatch.setattr(training, "measure_all", lambda *arguments: None)
    assert training.main() == status
    assert any(line["what"] == "failure" for line in read_record(path)) == bool(status)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    class NotFinite(nn.Cell):
        def construct(self, images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
            return images.sum() / 0

    with pytest.raises(FloatingPointError, match="must be finite"):
        seconds_of_step(NotFinite(), in_turn(TASK.batches(1)))


@pytest.mark.parametrize(
    ("losses", "refreshes", "failed"),
    [
        ([1.0, 2.002], "3", []),
        # More than ten times as far away as the run without sinking that was repeated.
        ([1.0, 2.03], "3", ["losses, sink of all"]),
        ([2.002], "3", []),
        ([2.03], "3", ["losses, sink of all"]),
        ([1.0, 2.002], "4", ["refreshes, sink of all"]),
    ],
)
def test_sinking_must_not_change_losses_and_refreshes(
    losses: list[float], refreshes: str, failed: list[str], tmp_path: Path
) -> None:
    found = {
        "without sink": {"losses": [1.0, 2.0], "refreshes": "3", "weights": 1.0},
        sink.REPEATED: {"losses": [1.0, 2.001], "refreshes": "3", "weights": 1.0},
        "sink of all": {"losses": losses, "refreshes": refreshes, "weights": 1.0},
    }
    record = Record(tmp_path / "part.jsonl")
    sink.compare(record, found)
    assert [line["of"] for line in read_record(record.path) if line["what"] == "failure"] == failed


def test_datasets_run_with_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.array

    def of_numpy_2(values: object, *arguments: object, copy: bool = True, **options: object) -> np.ndarray:
        if not copy:
            raise ValueError("Unable to avoid copy while creating an array as requested.")
        return array(values, *arguments, **options)

    monkeypatch.setattr(numpy2.datasets_user_defined, "np", np)
    assert numpy2.adapt() == ""
    monkeypatch.setattr(np, "array", of_numpy_2)
    dataset = ds.NumpySlicesDataset({"label": [3, 4]}, shuffle=False)
    assert [int(row["label"]) for row in dataset.create_dict_iterator(output_numpy=True)] == [3, 4]
