"""The runs of the comparison: what they train on and are evaluated on, and the times of their steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import mindspore.nn as nn
import numpy as np
import pytest

from benchmarks.comparison import step_times, tasks
from benchmarks.comparison import train as training
from benchmarks.comparison.budget import Budget, Schedule
from benchmarks.comparison.held_out import first_images, hold_out
from benchmarks.comparison.step_times import step_times_log, time_in_turn
from benchmarks.comparison.tasks import TASKS, setup_of
from benchmarks.support.large_graph import LargeGraph
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.recipe import Recipe, load_recipe
from tests.model_zoo.conftest import few_digits  # noqa: F401
from tests.model_zoo.synthetic_data import ROOT


def images(count: int) -> Split:
    pixels = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1)
    return Split(pixels, np.arange(count, dtype=np.int32))


def test_held_out_images_are_the_last_training_images() -> None:
    data = DataSet("some", images(10), Split(images(5).images, images(5).labels + 100), (0.0,), (1.0,))
    trial = hold_out(data, 3)
    assert trial.train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert trial.test.labels.tolist() == [7, 8, 9] == trial.test.images.ravel().tolist()
    assert first_images(data, 4).train.labels.tolist() == [0, 1, 2, 3]
    assert first_images(data, 4).test is data.test
    with pytest.raises(ValueError, match="must be fewer than the 10 training images of some, got 10"):
        hold_out(data, 10)
    with pytest.raises(TypeError, match="in memory, got str"):
        hold_out("a text", 10)


def test_trials_never_see_the_test_images_and_final_runs_see_all_training_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataSet("some", images(100), Split(images(5).images, images(5).labels + 200), (0.0,), (1.0,))
    monkeypatch.setattr(training, "load_data", lambda options, folder: data)
    monkeypatch.setitem(
        TASKS,
        "convnet_cifar10",
        tasks.Task(**{**TASKS["convnet_cifar10"].__dict__, "held_out": 30, "train_images": 7}),
    )
    seen: list[tuple[DataSet, int]] = []

    def train(recipe: object, given: DataSet, *others: object) -> dict[str, object]:
        seen.append((given, int(str(others[-1]))))
        return {"steps": 1}

    monkeypatch.setattr(training, "train", train)
    arguments = ["--task", "convnet_cifar10", "--method", "sgdm", "--budget", "3s", "--step-ms", "1"]
    arguments += ["--warm-up-seconds", "0"]
    for split in ("validation", "test"):
        training.main([*arguments, "--evaluations", "1", "--split", split])
        assert capsys.readouterr().out == '{"steps": 1}\n'
    (trial, none), (final, train_images) = seen
    assert trial.train.labels.tolist() == list(range(70))
    assert trial.test.labels.tolist() == list(range(70, 100))
    assert none == 0
    assert final is data
    assert train_images == 7


DESCRIBED = {"commit": "c", "date": "d", "machine": {"processor": "p", "cpus": 2}}


@pytest.fixture
def machine_of_step_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.describe_run", lambda: DESCRIBED)


def test_step_times_are_taken_in_turn_after_a_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []

    def step(name: str, seconds: float) -> None:
        now[0] += seconds if name in calls else 10.0
        calls.append(name)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    steps = {"a": lambda: step("a", 0.5), "b": lambda: step("b", 0.25)}
    assert time_in_turn(steps, 2, 3) == {"a": (10.0, [0.5] * 3), "b": (10.0, [0.25] * 3)}
    assert "".join(calls) == "ab" + "aabb" * 3


@pytest.fixture
def graph_mode() -> Iterator[None]:
    mode = ms.get_context("mode")
    yield
    ms.set_context(mode=mode)


SMALL = ("network.depth=1", "network.width=8", "network.heads=2", "network.patch=16", "data.batch_size=10")
# Two steps at a rate of zero, and two at the recipe's.
LATE = SimpleNamespace(factor=lambda progress: float(progress >= 0.5))


def small_recipe(*overrides: str) -> Recipe:
    return load_recipe(ROOT / "model_zoo/vit/vit_digits_sgdm.yaml", [*SMALL, *overrides])


@pytest.mark.usefixtures("graph_mode")
def test_a_run_trains_and_evaluates_as_often_as_asked(few_digits: DataSet) -> None:  # noqa: F811
    # The training images are made equal to the test images, so that both have the same losses.
    data = DataSet(
        "digits",
        few_digits.train,
        Split(few_digits.train.images[:8], few_digits.train.labels[:8]),
        few_digits.mean,
        few_digits.deviation,
    )
    recipe = small_recipe("optimizer.learning_rate=1")
    # Two batches per epoch.
    result = training.train(recipe, data, Budget(2, "epochs"), 1.0, 0.0, 4, LATE, 8)
    assert (result["steps"], result["error"]) == (4, "")
    steps, losses, metrics, train_losses, train_metrics = zip(*result["curve"])
    assert steps == (1, 2, 3, 4)
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3
    assert train_losses == losses
    assert train_metrics == metrics


@pytest.mark.usefixtures("few_digits", "graph_mode", "machine_of_step_times")
def test_step_times_outlast_the_schedule_of_the_recipe(tmp_path: Path) -> None:
    small = [*SMALL, "epochs=1", "schedule.warmup_epochs=0"]
    settings = [part for setting in small for part in ("--set", setting)]
    arguments = ["--task", "vit_digits", "--methods", "sgdm", "--rounds", "2", *settings]
    arguments += ["--output", str(tmp_path)]
    assert step_times.main([*arguments, "--steps", "30"]) == 0
    setup = setup_of("vit_digits", "sgdm", small, tuned=False)
    row = step_times_log(tmp_path, "vit_digits").find(method="sgdm", settings=" ".join(small), setup=setup)
    assert row is not None
    assert 0 < float(row["least_ms"]) <= float(row["step_ms"]) <= float(row["largest_ms"])


@pytest.mark.usefixtures("machine_of_step_times")
def test_the_first_round_is_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_times, "_step_of", lambda *given: None)
    monkeypatch.setattr(
        step_times,
        "time_in_turn",
        lambda *given: {"sgdm": (1.0, [0.08, 0.1, 0.12, 0.1]), "kfac": (3.0, [0.3, 0.1, 0.2, 0.2])},
    )
    arguments = ["--task", "vit_digits", "--methods", "sgdm,kfac", "--steps", "50", "--output", str(tmp_path)]
    step_times.main(arguments)
    rows = step_times_log(tmp_path, "vit_digits").rows()
    assert [row["step_ms"] for row in rows] == ["100.00", "200.00"]
    assert [row["warm_up_seconds"] for row in rows] == ["0.00", "5.00"]
    with pytest.raises(SystemExit):
        step_times.main([*arguments, "--rounds", "1"])
    assert "--rounds: must be at least 2, got 1" in capsys.readouterr().err


@pytest.mark.usefixtures("few_digits", "graph_mode")
@pytest.mark.parametrize("as_is", [False, True])
def test_steps_are_timed_in_a_large_graph_unless_asked(monkeypatch: pytest.MonkeyPatch, as_is: bool) -> None:
    made: list[nn.Cell] = []
    monkeypatch.setattr(
        "benchmarks.support.large_graph.LargeGraph", lambda step: made.append(step) or LargeGraph(step)
    )
    step_times._step_of(small_recipe(), None, as_is)()
    assert len(made) == 1 - as_is


@pytest.mark.usefixtures("few_digits", "graph_mode")
def test_step_times_of_a_diverging_recipe_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, math.nan])
    network = SimpleNamespace(train_network=lambda *batch: ms.Tensor(next(losses)))
    monkeypatch.setattr("model_zoo.common.factory.build", lambda *given: SimpleNamespace(model=network))
    step = step_times._step_of(small_recipe(), None, as_is=True)
    step()
    with pytest.raises(FloatingPointError, match="sgdm: the loss is nan"):
        step()


@pytest.mark.usefixtures("graph_mode")
def test_a_run_that_diverges_ends_with_an_error(few_digits: DataSet) -> None:  # noqa: F811
    recipe = small_recipe("optimizer.learning_rate=1e30", "mode=pynative")
    schedule = Schedule("constant", 0.0, 1.0)
    result = training.train(recipe, few_digits, Budget(5), 100.0, 0.0, 1, schedule, 0)
    assert result["error"].startswith("the loss is nan at step")
    assert result["curve"] == []


def test_a_run_without_its_data_ends_with_the_status_of_a_wrong_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--task", "convnet_cifar10", "--method", "sgdm", "--budget", "3s", "--step-ms", "1"]
    arguments += ["--warm-up-seconds", "0", "--evaluations", "1", "--split", "test"]
    for wrong in ([], ["--data-dir", str(tmp_path)], ["--set", "optimizer.rate=1"]):
        assert training.main([*arguments, *wrong]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
