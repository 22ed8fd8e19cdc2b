"""The comparison on transformers: equal grids, budgets, tables, and a log that continues."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import pytest

from benchmarks.support.run_log import RunLog, error_line
from benchmarks.transformers import __main__ as command
from benchmarks.transformers import step_times
from benchmarks.transformers.budget import rate_factor, steps_in
from benchmarks.transformers.grid import METHODS, TASKS, recipe_of, settings_of
from benchmarks.transformers.step_times import step_times_log, time_in_turn
from benchmarks.transformers.table import best_points, clock_table, mean_curve, seconds_until
from benchmarks.transformers.train import train
from model_zoo.common.checkpoint.resume import recipe_to_json
from model_zoo.common.recipe import Recipe, load_recipe
from tests.model_zoo.conftest import few_digits  # noqa: F401
from tests.model_zoo.synthetic_data import ROOT


def row(method: str, point: str, loss: float, seed: int = 1, error: str = "") -> dict[str, str]:
    curve = [] if error else [[5, 2 * loss, 0.2], [10, loss, 0.4]]
    return {
        "method": method,
        "point": point,
        "seed": str(seed),
        "steps": "10",
        "step_ms": "200.00",
        "curve": json.dumps(curve),
        "error": error,
    }


def test_each_method_has_as_many_points() -> None:
    assert {len(method.points()) for method in METHODS.values()} == {12}
    assert {len(set(method.points())) for method in METHODS.values()} == {12}


@pytest.mark.parametrize("task", TASKS)
def test_each_point_is_accepted_by_its_recipe(task: str) -> None:
    for name, method in METHODS.items():
        point = method.points()[-1].split()
        recipe = load_recipe(ROOT / recipe_of(task, name), settings_of(task, name, point))
        written = recipe_to_json(recipe)["optimizer"]
        for key, values in method.grid.items():
            assert written[key.removeprefix("optimizer.")] == max(values)


def test_methods_take_turns() -> None:
    plans = list(command.trials(["adamw", "kfac"], 5.0))
    assert [plan.method for plan in plans] == ["adamw", "kfac"] * 12
    assert [plan.point for plan in plans[::2]] == METHODS["adamw"].points()


def test_the_learning_rate_follows_the_budget() -> None:
    assert steps_in(2.0, 0.3, 5) == 7
    assert steps_in(2.0, 3.0, 5) == 5
    assert rate_factor(0.0) == 0.01
    assert rate_factor(0.025) == 0.5
    assert rate_factor(0.05) == 1.0
    assert rate_factor(0.525) == pytest.approx(0.5)
    assert rate_factor(1.0) == rate_factor(1.1) == pytest.approx(0.0, abs=1e-12)


def test_the_best_point_has_the_lowest_loss_of_those_that_finished() -> None:
    kfac = METHODS["kfac"].points()
    rows = [row("kfac", kfac[0], 2.0), row("kfac", kfac[5], 1.5), row("kfac", kfac[3], 0.0, error="NaN")]
    rows += [row("adamw", METHODS["adamw"].points()[0], 1.0), row("sgdm", "x", 0.0, error="NaN")]
    assert best_points(rows) == {"adamw": METHODS["adamw"].points()[0], "kfac": kfac[5]}
    assert METHODS["kfac"].edges(kfac[0]) == ["optimizer.kl_clip", "optimizer.damping"]
    assert METHODS["kfac"].edges(kfac[4]) == []


def test_the_table_by_the_clock() -> None:
    adamw, kfac = METHODS["adamw"].points()[4], METHODS["kfac"].points()[1]
    rows = [row("kfac", kfac, 1.0), row("kfac", kfac, 2.0, 2), row("kfac", kfac, 0.0, 3, "NaN")]
    assert mean_curve(rows) == [(1.0, 3.0, 0.2), (2.0, 1.5, 0.4)]
    times = {"adamw": {"compile_seconds": "3.2"}, "kfac": {"compile_seconds": "4"}}
    lines = clock_table({"adamw": [row("adamw", adamw, 2.25)], "kfac": rows}, "accuracy", times)
    assert "| adamw | learning_rate=0.001 beta2=0.99 | 1 | 200.0 | 3 | 10 |" in lines[2]
    assert lines[2].endswith("| 2.2500 (2.2500) | 0.4000 | 2 of 2 |")
    # 3.0 after one second and 1.5 after two: 2.25 in the middle.
    assert "edge: kl_clip" in lines[3]
    assert lines[3].endswith(
        "| 2 (1 failed) | 200.0 | 4 | 10 | 3.0000 | 3.0000 | 1.5000 (1.0000, 2.0000) | 0.4000 | 2 of 2 |"
    )
    assert seconds_until(mean_curve(rows), 2.25) == pytest.approx(1.5)
    assert seconds_until(mean_curve(rows), 4.0) == 1.0
    assert seconds_until(mean_curve(rows), 1.0) is None


def test_a_log_continues_and_drops_an_incomplete_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.csv"
    log = RunLog(path, ("name", "seed", "text"), ("name", "seed"))
    log.append({"name": "a", "seed": 1, "text": 'one, "two"\nthree'})
    with path.open("a") as file:
        file.write("b,1,cut o")
    log = RunLog(path, ("name", "seed", "text"), ("name", "seed"))
    log.append({"name": "a", "seed": 2})
    assert [line["seed"] for line in log.rows()] == ["1", "2"]
    assert log.find(name="a", seed=1) == {"name": "a", "seed": "1", "text": 'one, "two" three'}
    assert log.find(name="b", seed=1) is None
    with pytest.raises(ValueError, match=r"log\.csv must have the columns name, got name, seed, text"):
        RunLog(path, ("name",), ("name",))


def test_an_exception_is_found_above_a_stack() -> None:
    assert (
        error_line("Traceback\n  File x\nmindspore.X.OwnError: no\n\n- C++ Stack\nfile.cc:1\n", 1)
        == "mindspore.X.OwnError: no"
    )
    assert error_line("one\ntwo\n", 1) == "two"
    assert error_line("", -9) == "exit status -9"


DESCRIBED = {"commit": "c", "date": "d", "machine": {"processor": "p", "cpus": 2}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "describe_run", lambda: DESCRIBED)


@pytest.fixture
def machine_of_step_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.describe_run", lambda: DESCRIBED)


def write_step_times(folder: Path, **milliseconds: float) -> None:
    log = step_times_log(folder, "vit_digits")
    for method, step_ms in milliseconds.items():
        log.append({"method": method, "settings": "", "step_ms": step_ms, "compile_seconds": 1.0})


def test_step_times_are_taken_in_turn_after_a_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []

    def step(name: str, seconds: float) -> None:
        now[0] += seconds if name in calls else 10.0
        calls.append(name)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    steps = {"a": lambda: step("a", 0.5), "b": lambda: step("b", 0.25)}
    assert time_in_turn(steps, 2, 3) == {"a": (10.0, [0.5] * 3), "b": (10.0, [0.25] * 3)}
    assert "".join(calls) == "ab" + "aabb" * 3


@pytest.mark.usefixtures("machine")
def test_a_command_repeats_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(arguments: list[str], **options: object) -> SimpleNamespace:
        commands.append(arguments)
        sets = [value for key, value in zip(arguments, arguments[1:]) if key == "--set"]
        loss = float(next(value for value in sets if "learning_rate" in value).partition("=")[2])
        result = row("", "", loss)
        steps = int(arguments[arguments.index("--steps") + 1])
        found = {"steps": steps, "error": "", "curve": json.loads(result["curve"])}
        if "optimizer.beta2=0.999" in sets:
            return SimpleNamespace(
                returncode=1, stdout="", stderr="Traceback\nRuntimeError: broken\n\nstack.cc:1 f\n"
            )
        return SimpleNamespace(returncode=0, stdout=f"noise\n{json.dumps(found)}\n", stderr="")

    monkeypatch.setattr(command.subprocess, "run", run)
    arguments = ["--task", "vit_digits", "--methods", "adamw,kfac", "--seconds", "2", "--final-seconds", "4"]
    arguments += ["--seeds", "2", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="no step time of adamw, kfac: first run"):
        command.main(arguments)
    write_step_times(tmp_path, adamw=200.0, kfac=250.0)
    command.main([*arguments, "--max-hours", "0"])
    assert commands == []
    command.main(arguments)
    assert len(commands) == 2 * 12 + 2 * 2
    assert commands[0][3:5] == ["--recipe", str(ROOT / "model_zoo/vit/vit_digits_adamw.yaml")]
    steps = [made[made.index("--steps") + 1] for made in commands[22:]]
    # A trial has at least a step per evaluation.
    assert steps == ["10", "10", "20", "16", "20", "16"]
    command.main(arguments)
    assert len(commands) == 28
    command.main([*arguments[:-4], "--seeds", "3", "--output", str(tmp_path)])
    assert len(commands) == 30
    text = (tmp_path / "vit_digits.md").read_text(encoding="utf-8")
    assert "| kfac | kl_clip=1e-06 damping=1e-05 (edge: kl_clip, damping) | 3 |" in text
    assert "| adamw | learning_rate=0.004 beta2=0.999 | RuntimeError: broken | 0 |" in text


@pytest.mark.usefixtures("machine")
def test_a_run_that_takes_too_long_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], **options: float) -> None:
        raise subprocess.TimeoutExpired(arguments, options["timeout"])

    monkeypatch.setattr(command.subprocess, "run", run)
    write_step_times(tmp_path, sgdm=100.0)
    command.main(["--task", "vit_digits", "--methods", "sgdm", "--seconds", "1", "--output", str(tmp_path)])
    text = (tmp_path / "vit_digits.md").read_text(encoding="utf-8")
    assert text.count("not finished after 3600 s") == 12


@pytest.fixture
def graph_mode() -> Iterator[None]:
    mode = ms.get_context("mode")
    yield
    ms.set_context(mode=mode)


SMALL = ("network.depth=1", "network.width=8", "network.heads=2", "network.patch=16", "data.batch_size=10")


def small_recipe(*overrides: str) -> Recipe:
    return load_recipe(ROOT / "model_zoo/vit/vit_digits_sgdm.yaml", [*SMALL, *overrides])


@pytest.mark.usefixtures("few_digits", "graph_mode")
def test_a_run_trains_and_evaluates_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two steps at a rate of zero, and two at the recipe's.
    monkeypatch.setattr("benchmarks.transformers.train.rate_factor", lambda progress: float(progress >= 0.5))
    result = train(small_recipe("optimizer.learning_rate=1"), 4, 4, None)
    assert (result["steps"], result["error"]) == (4, "")
    steps, losses, _ = zip(*result["curve"])
    assert steps == (1, 2, 3, 4)
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


@pytest.mark.usefixtures("few_digits", "graph_mode", "machine_of_step_times")
def test_step_times_outlast_the_schedule_of_the_recipe(tmp_path: Path) -> None:
    small = [*SMALL, "epochs=1", "schedule.warmup_epochs=0"]
    settings = [part for setting in small for part in ("--set", setting)]
    arguments = ["--task", "vit_digits", "--methods", "sgdm", "--steps", "60", "--rounds", "1", *settings]
    assert step_times.main([*arguments, "--output", str(tmp_path)]) == 0
    row = step_times_log(tmp_path, "vit_digits").find(method="sgdm", settings=" ".join(small))
    assert row is not None
    assert 0 < float(row["least_ms"]) <= float(row["step_ms"]) <= float(row["largest_ms"])


@pytest.mark.usefixtures("few_digits", "graph_mode")
def test_a_run_that_diverges_ends_with_an_error() -> None:
    result = train(small_recipe("optimizer.learning_rate=1e30"), 50, 1, None)
    assert result["error"].startswith("the loss is nan at step")
    assert result["curve"] == []
