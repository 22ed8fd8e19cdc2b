"""The metrics log: the content of its objects, and a clock that counts only training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model_zoo.common.curves import read_metrics
from model_zoo.common.metrics_log import MetricsLog, TrainingClock


class Sums:
    """Stands in for RunningLoss: every step adds the given loss and a metric of 0.5."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.loss = self.metric = 0.0

    def add(self, loss: float) -> None:
        self.loss += loss
        self.metric += 0.5

    def sums(self) -> tuple[float, float]:
        return self.loss, self.metric


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test advances."""
    time = [100.0]
    monkeypatch.setattr("model_zoo.common.metrics_log.time.perf_counter", lambda: time[0])
    return time


def test_metrics_log_holds_means_and_training_seconds(tmp_path: Path, now: list[float]) -> None:
    sums = Sums()

    def evaluate() -> dict[str, float]:
        now[0] += 1000.0
        return {"test_accuracy": 0.25, "test_loss": 2.0}

    metrics_log = MetricsLog(tmp_path / "metrics.jsonl", sums, "accuracy", evaluate, log_every=2)
    parameters = SimpleNamespace(
        cur_step_num=0, cur_epoch_num=0, batch_num=3, train_dataset=SimpleNamespace(get_batch_size=lambda: 10)
    )
    context = SimpleNamespace(original_args=lambda: parameters)
    metrics_log.open()
    metrics_log.on_train_begin(context)
    for epoch in (1, 2):
        parameters.cur_epoch_num = epoch
        metrics_log.on_train_epoch_begin(context)
        for _ in range(3):
            parameters.cur_step_num += 1
            now[0] += 5.0 if parameters.cur_step_num == 1 else 1.0
            sums.add(float(parameters.cur_step_num))
            metrics_log.on_train_step_end(context)
        shown = metrics_log.running_metrics()
        metrics_log.on_train_epoch_end(context)

    assert shown == {"running accuracy": 0.5, "test accuracy": 0.25}
    steps = [line for line in read_metrics(tmp_path) if line["kind"] == "step"]
    # Losses are 1 to 6; a mean never reaches over the end of an epoch.
    assert [(line["step"], line["running_loss"]) for line in steps] == [(2, 1.5), (4, 4.0), (6, 5.5)]
    assert [line["seconds"] for line in steps] == [6.0, 8.0, 10.0]
    first, second = metrics_log.epochs
    assert (first["running_loss"], second["running_loss"]) == (2.0, 5.0)
    assert (first["running_accuracy"], second["running_accuracy"]) == (0.5, 0.5)
    assert (first["epoch_seconds"], second["epoch_seconds"]) == (7.0, 3.0)
    assert (first["seconds"], second["seconds"]) == (7.0, 10.0)
    assert (first["images_per_second"], second["images_per_second"]) == (10.0, 10.0)
    assert first["first_step_seconds"] == 5.0
    assert second["test_accuracy"] == 0.25


def test_stopped_clock_does_not_advance(now: list[float]) -> None:
    clock = TrainingClock()
    clock.start()
    now[0] = 103.0
    clock.start()
    assert clock.seconds == 3.0
    clock.stop()
    now[0] = 110.0
    assert clock.seconds == 3.0
    clock.start()
    now[0] = 111.0
    assert clock.seconds == 4.0


def test_numbers_of_a_diverged_run_are_null(tmp_path: Path, now: list[float]) -> None:
    sums = Sums()
    path = tmp_path / "metrics.jsonl"
    metrics_log = MetricsLog(path, sums, "accuracy", lambda: {"test_loss": float("inf")}, log_every=1)
    parameters = SimpleNamespace(
        cur_step_num=0, cur_epoch_num=1, batch_num=1, train_dataset=SimpleNamespace(get_batch_size=lambda: 10)
    )
    context = SimpleNamespace(original_args=lambda: parameters)
    metrics_log.open()
    metrics_log.on_train_begin(context)
    metrics_log.on_train_epoch_begin(context)
    now[0] += 1.0
    parameters.cur_step_num = 1
    sums.add(float("nan"))
    metrics_log.on_train_step_end(context)
    metrics_log.on_train_epoch_end(context)
    metrics_log.add_curvature({"clip_factor": None, "layers": {"a": {"eigenvalues": [float("nan"), 1.0]}}})
    written = path.read_text()
    assert "NaN" not in written and "Infinity" not in written
    step, epoch, curvature = read_metrics(tmp_path)
    assert np.isnan([step["running_loss"], epoch["running_loss"], epoch["test_loss"]]).all()
    assert (curvature["clip_factor"], curvature["layers"]) == (None, {"a": {"eigenvalues": [None, 1.0]}})
    resumed = MetricsLog(path, sums, "accuracy", dict, log_every=1, written=written.encode())
    assert np.isnan(resumed.epochs[0]["running_loss"])
