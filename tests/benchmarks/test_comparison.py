"""The comparison: equal grids, held-out images, a log that continues, and its runs."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

from benchmarks.comparison import __main__ as command
from benchmarks.comparison import runs, step_times, tasks
from benchmarks.comparison import train as training
from benchmarks.comparison.budget import COSINE, ONE_CYCLE, Budget, Schedule, read_budget, read_budgets
from benchmarks.comparison.grid import DERIVED, POINTS, Method
from benchmarks.comparison.held_out import first_images, hold_out
from benchmarks.comparison.step_times import step_times_log, time_in_turn
from benchmarks.comparison.tasks import RESULTS, TASKS, recipe_of, settings_of, setup_of
from benchmarks.support.run_log import RunLog, error_line
from model_zoo.common.checkpoint.resume import recipe_to_json
from model_zoo.common.data.splits import DataSet, Split
from model_zoo.common.methods import METHODS
from model_zoo.common.recipe import Recipe, load_recipe
from tests.model_zoo.conftest import few_digits  # noqa: F401
from tests.model_zoo.synthetic_data import ROOT

# The columns and methods of the benchmark of transformers that this one continues.
OLD_COLUMNS = (
    "method,point,settings,seed,budget,evaluations,step_ms,steps,curve,error,commit,date,processor,cpus"
)
OLD_METHODS = (
    "adamw,sgdm,kfac,kfac-momentum,kfac-reduce,kfac-sampled,kfac-unitwise,ekfac,ekfac-reduce,"
    "skfac,skfac-reduce"
)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_compares_all_methods_with_grids_of_one_size(task: str) -> None:
    methods = TASKS[task].methods
    adam = "adam" if task == "autoencoder_mnist" else "adamw"
    assert {"sgdm", "nesterov", adam, *METHODS} <= set(methods)
    assert {len(set(method.points())) for method in methods.values()} == {POINTS} == {12}
    assert methods["nesterov"].grid == methods["sgdm"].grid
    assert set(TASKS[task].compared) <= set(methods)
    assert {TASKS[task].reference, "sgdm"} <= set(TASKS[task].compared)


@pytest.mark.parametrize("task", TASKS)
def test_each_point_reaches_the_optimizer_that_the_method_names(task: str) -> None:
    for name, method in TASKS[task].methods.items():
        point = method.points()[-1].split()
        recipe = load_recipe(recipe_of(task, name), settings_of(task, name, point))
        written = recipe_to_json(recipe)["optimizer"]
        for key, values in method.grid.items():
            assert written[key.removeprefix("optimizer.")] == max(values)
        assert written["name"] == ("sgdm" if name == "nesterov" else name.partition("-")[0])
        if written["name"] == "sgdm":
            assert written["nesterov"] == (name == "nesterov")


def test_derived_methods_differ_from_the_recipe_in_their_name_and_their_own_options() -> None:
    kfac = recipe_to_json(load_recipe(recipe_of("convnet_cifar10", "kfac")))
    own = {"name", "damping_split", "full_refreshes", "factor_interval", "inverse_interval", "factor_decay"}
    own |= {"normalization", "learning_rate"}
    for name in DERIVED:
        path = recipe_of("convnet_cifar10", name)
        found = recipe_to_json(load_recipe(path, settings_of("convnet_cifar10", name, [])))
        changed = {key for key, value in kfac["optimizer"].items() if found["optimizer"].get(key) != value}
        assert "name" in changed <= own
        assert {key: found[key] for key in found if key != "optimizer"} == {
            key: kfac[key] for key in kfac if key != "optimizer"
        }


def test_files_of_the_earlier_benchmark_are_read_and_keep_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "gpt_stdlib.csv"
    line = 'kfac,p,network.depth=2,1,60,6,94.64,634,"[[106, 2.6, 3.7]]",,c,d,AMD,2'
    path.write_text(f"{OLD_COLUMNS}\n{line}\n")
    log = RunLog(path, runs.COLUMNS, runs.KEY, runs.ADDED)
    key = {"method": "kfac", "point": "p", "settings": "network.depth=2", "seed": 1, "budget": "60"}
    key |= {"evaluations": 6, "step_ms": "94.64", "split": "test", "setup": "any"}
    found = log.find(**key)
    assert found is not None
    assert (found["steps"], found["split"], found["setup"]) == ("634", "", "")
    log.append({**key, "seed": 2, "steps": 5})
    assert log.find(**{**key, "seed": 2})["steps"] == "5"
    assert path.read_text().splitlines()[0] == OLD_COLUMNS
    with pytest.raises(ValueError, match=r"gpt_stdlib\.csv must have the columns"):
        RunLog(path, runs.COLUMNS, runs.KEY)


def test_committed_step_times_serve_the_methods_that_have_them() -> None:
    for task in ("gpt_stdlib", "vit_digits"):
        assert OLD_METHODS.split(",") == [m for m in OLD_METHODS.split(",") if m in TASKS[task].methods]
        log = step_times_log(RESULTS, task)
        rows = [
            log.find(method=name, settings="", setup=setup_of(task, name, []))
            for name in TASKS[task].compared
        ]
        assert all(row is not None and float(row["step_ms"]) > 0 for row in rows)


def test_a_new_file_tells_runs_apart_by_split_and_setup(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "new.csv", runs.COLUMNS, runs.KEY, runs.ADDED)
    key = dict.fromkeys(runs.KEY, "x")
    log.append({**key, "steps": 1})
    assert log.find(**key)["steps"] == "1"
    assert log.find(**{**key, "split": "test"}) is None
    assert log.find(**{**key, "setup": "y"}) is None


def test_the_setup_follows_what_a_run_trains_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# one\nnetwork: {name: convnet}\noptimizer: {name: kfac, damping: 0.1}\nepochs: 3\nseed: 1\n"
    path = tmp_path / "recipe_kfac.yaml"
    monkeypatch.setattr(tasks, "recipe_of", lambda task, method: path)

    def found(content: str, *settings: str) -> str:
        path.write_text(content)
        return setup_of("convnet_cifar10", "kfac", settings)

    first = found(text)
    assert len(first) == 12
    assert found(text.replace("# one", "# two").replace("epochs: 3", "epochs: 4"), "seed=2") == first
    assert found(text.replace("damping: 0.1", "damping: 0.2")) != first
    assert found(text, "optimizer.damping=0.2") != first
    for name, value in (("held_out", 10), ("schedule", ONE_CYCLE), ("train_images", 5)):
        changed = {**TASKS["convnet_cifar10"].__dict__, name: value}
        with monkeypatch.context() as patch:
            patch.setitem(TASKS, "convnet_cifar10", tasks.Task(**changed))
            assert found(text) != first


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
    for split in ("validation", "test"):
        training.main([*arguments, "--evaluations", "1", "--split", split])
        assert capsys.readouterr().out == '{"steps": 1}\n'
    (trial, none), (final, train_images) = seen
    assert trial.train.labels.tolist() == list(range(70))
    assert trial.test.labels.tolist() == list(range(70, 100))
    assert none == 0
    assert final is data
    assert train_images == 7


def test_methods_take_turns() -> None:
    plans = list(runs.trials("convnet_cifar10", ["adamw", "kfac"], Budget(5), 2))
    methods = TASKS["convnet_cifar10"].methods
    assert [plan.method for plan in plans] == ["adamw", "kfac"] * 12
    assert [plan.point for plan in plans[::2]] == methods["adamw"].points()
    assert {plan.split for plan in plans} == {"validation"}
    ends = runs.finals({"adamw": "a", "kfac": "b"}, (Budget(1), Budget(2)), 2, 4)
    assert [(plan.method, plan.seed, plan.budget.amount) for plan in ends[:5]] == [
        ("adamw", 1, 1),
        ("kfac", 1, 1),
        ("adamw", 2, 1),
        ("kfac", 2, 1),
        ("adamw", 1, 2),
    ]
    assert {plan.split for plan in ends} == {"test"}
    # The texts have no third split.
    assert next(runs.trials("gpt_stdlib", ["kfac"], Budget(5), 2)).split == "test"


def test_a_budget_is_a_number_of_seconds_or_epochs() -> None:
    assert read_budget("60s") == Budget(60)
    assert read_budgets("3epochs,0.5epochs") == (Budget(3, "epochs"), Budget(0.5, "epochs"))
    assert (Budget(60).key, str(Budget(60))) == ("60", "60 s")
    assert Budget(3, "epochs").key == "3 epochs"
    assert Budget(2).steps(0.3, 5, 100) == 7
    assert Budget(2).steps(3.0, 5, 100) == 5
    assert Budget(1.5, "epochs").steps(0.3, 5, 100) == 150
    for text in ("60", "-1s", "infs", "2 hours", "s"):
        with pytest.raises(argparse.ArgumentTypeError, match="must be a positive number with s or epochs"):
            read_budget(text)
    with pytest.raises(argparse.ArgumentTypeError, match="all in s or all in epochs, got 1s,2epochs"):
        read_budgets("1s,2epochs")


def test_the_learning_rate_follows_the_budget() -> None:
    assert COSINE.factor(0.0) == 0.01
    assert COSINE.factor(0.025) == 0.5
    assert COSINE.factor(0.05) == 1.0
    assert COSINE.factor(0.525) == pytest.approx(0.5)
    assert COSINE.factor(1.0) == COSINE.factor(1.1) == pytest.approx(0.0, abs=1e-12)
    assert ONE_CYCLE.factor(0.0) == 0.04
    assert ONE_CYCLE.factor(0.15) == pytest.approx(0.5)
    assert ONE_CYCLE.factor(0.3) == 1.0
    assert ONE_CYCLE.factor(0.65) == pytest.approx(0.5)


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
    monkeypatch.setattr(runs, "describe_run", lambda: DESCRIBED)


@pytest.fixture
def machine_of_step_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.machine.describe_run", lambda: DESCRIBED)


def write_step_times(folder: Path, task: str, **milliseconds: float) -> None:
    log = step_times_log(folder, task)
    for method, step_ms in milliseconds.items():
        row = {"method": method, "settings": "", "step_ms": step_ms, "compile_seconds": 1.0}
        log.append({**row, "setup": setup_of(task, method, [])})


def test_step_times_are_taken_in_turn_after_a_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []

    def step(name: str, seconds: float) -> None:
        now[0] += seconds if name in calls else 10.0
        calls.append(name)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    steps = {"a": lambda: step("a", 0.5), "b": lambda: step("b", 0.25)}
    assert time_in_turn(steps, 2, 3) == {"a": (10.0, [0.5] * 3), "b": (10.0, [0.25] * 3)}
    assert "".join(calls) == "ab" + "aabb" * 3


def value_of(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


@pytest.mark.usefixtures("machine")
def test_a_command_repeats_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(arguments: list[str], **options: object) -> SimpleNamespace:
        commands.append(arguments)
        sets = [value for key, value in zip(arguments, arguments[1:]) if key == "--set"]
        if "optimizer.weight_decay=0.5" in sets:
            return SimpleNamespace(
                returncode=1, stdout="", stderr="Traceback\nRuntimeError: broken\n\nstack.cc:1 f\n"
            )
        # The smallest damping and the largest rate are the best.
        chosen = next(value for value in sets if "damping" in value or "learning_rate" in value)
        number = float(chosen.partition("=")[2])
        accuracy = 0.5 + (number if "learning_rate" in chosen else -number)
        ends = [2.0, accuracy] if value_of(arguments, "--split") == "test" else []
        found = {"steps": 20, "error": "", "curve": [[10, 3.0, 0.1, *ends], [20, 2.0, accuracy, *ends]]}
        return SimpleNamespace(returncode=0, stdout=f"noise\n{json.dumps(found)}\n", stderr="")

    pictures: list[tuple[dict[str, list[object]], Path]] = []
    monkeypatch.setattr(command, "draw", lambda *given: pictures.append(given[2:]))
    monkeypatch.setattr(runs.subprocess, "run", run)
    arguments = ["--task", "convnet_cifar10", "--methods", "adamw,kfac", "--budget", "2s"]
    arguments += ["--final-budgets", "4s,8s", "--output", str(tmp_path), "--evaluations", "3"]
    with pytest.raises(SystemExit, match="no step time of adamw, kfac: first run"):
        command.main([*arguments, "--seeds", "2"])
    write_step_times(tmp_path, "convnet_cifar10", adamw=200.0, kfac=250.0)
    command.main([*arguments, "--seeds", "2", "--max-hours", "0"])
    assert commands == []
    text = (tmp_path / "convnet_cifar10.md").read_text(encoding="utf-8")
    assert "Trials made: 0 of 24, 12 per method, 2 s each, seed 1." in text
    command.main([*arguments, "--seeds", "2"])
    assert len(commands) == 2 * 12 + 2 * 2 * 2
    assert commands[0][3:9] == ["--task", "convnet_cifar10", "--method", "adamw", "--split", "validation"]
    assert [value_of(made, "--step-ms") for made in commands[:2]] == ["200.0", "250.0"]
    assert [value_of(made, "--budget") for made in commands[22:]] == ["2s", "2s", *["4s"] * 4, *["8s"] * 4]
    assert [value_of(made, "--evaluations") for made in commands[23:25]] == ["3", "24"]
    assert {value_of(made, "--split") for made in commands[24:]} == {"test"}
    command.main([*arguments, "--seeds", "2"])
    assert len(commands) == 32
    command.main([*arguments, "--seeds", "3"])
    assert len(commands) == 36
    text = (tmp_path / "convnet_cifar10.md").read_text(encoding="utf-8")
    assert "| kfac | damping=0.01 kl_clip=0.0005 weight_decay=0.0005 (edge: damping) | 250.0 |" in text
    assert "| adamw | learning_rate=0.008 weight_decay=0.05 (edge: learning_rate) | 200.0 |" in text
    assert "| adamw | learning_rate=0.004 weight_decay=0.5 | RuntimeError: broken |  | 0 |" in text
    finals, target = pictures[-1]
    assert {name: len(rows) for name, rows in finals.items()} == {"adamw": 6, "kfac": 6}
    assert target == tmp_path / "convnet_cifar10.png"
    # A changed recipe is another run.
    method = TASKS["convnet_cifar10"].methods["kfac"]
    changed = Method(method.recipe, method.grid, (*method.settings, "optimizer.fisher=empirical"))
    with monkeypatch.context() as patch:
        patch.setitem(TASKS["convnet_cifar10"].methods, "kfac", changed)
        with pytest.raises(SystemExit, match="no step time of kfac"):
            command.main([*arguments, "--seeds", "3"])
        write_step_times(tmp_path, "convnet_cifar10", kfac=250.0)
        command.main([*arguments, "--seeds", "3"])
    assert len(commands) == 36 + 12 + 6


def test_an_unknown_method_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for main in (command.main, step_times.main):
        with pytest.raises(SystemExit):
            main(["--task", "autoencoder_mnist", "--methods", "kfac,adamw"])
        assert "--methods: must be of sgdm, nesterov, adam, kfac" in capsys.readouterr().err


def test_a_command_counts_the_runs_of_the_earlier_benchmark(tmp_path: Path) -> None:
    point = "optimizer.learning_rate=0.0005 optimizer.beta2=0.95"
    line = f'adamw,{point},,1,60,6,94.64,634,"[[106, 2.6, 3.7]]",,c,d,AMD,2'
    for task in ("gpt_stdlib", "convnet_cifar10"):
        (tmp_path / f"{task}.csv").write_text(f"{OLD_COLUMNS}\n{line}\n")
    write_step_times(tmp_path, "gpt_stdlib", adamw=94.64)
    arguments = ["--methods", "adamw", "--budget", "60s", "--evaluations", "6", "--tables-only"]
    arguments += ["--output", str(tmp_path)]
    command.main(["--task", "gpt_stdlib", *arguments])
    text = (tmp_path / "gpt_stdlib.md").read_text(encoding="utf-8")
    assert "Trials made: 1 of 12, 12 per method, 60 s each, seed 1." in text
    assert "| adamw | learning_rate=0.0005 beta2=0.95 | 3.7000 | 2.6000 | 634 |" in text
    # Such a file can't say what a trial held out.
    with pytest.raises(ValueError, match=r"convnet_cifar10\.csv must have the columns"):
        command.main(["--task", "convnet_cifar10", *arguments])


@pytest.mark.usefixtures("machine")
def test_a_run_that_takes_too_long_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], **options: float) -> None:
        raise subprocess.TimeoutExpired(arguments, options["timeout"])

    monkeypatch.setattr(runs.subprocess, "run", run)
    write_step_times(tmp_path, "vit_digits", sgdm=100.0)
    command.main(["--task", "vit_digits", "--methods", "sgdm", "--budget", "1s", "--output", str(tmp_path)])
    text = (tmp_path / "vit_digits.md").read_text(encoding="utf-8")
    assert text.count("not finished after 3600 s") == 12
    assert runs.Plan("a", "p", 1, Budget(10, "epochs"), "test", 1).timeout == 36_000


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
    result = training.train(recipe, data, Budget(2, "epochs"), 1.0, 4, LATE, 8)
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
    arguments = ["--task", "vit_digits", "--methods", "sgdm", "--rounds", "1", *settings]
    arguments += ["--output", str(tmp_path)]
    assert step_times.main([*arguments, "--steps", "60"]) == 0
    key = {"method": "sgdm", "settings": " ".join(small), "setup": setup_of("vit_digits", "sgdm", small)}
    row = step_times_log(tmp_path, "vit_digits").find(**key)
    assert row is not None
    assert 0 < float(row["least_ms"]) <= float(row["step_ms"]) <= float(row["largest_ms"])


@pytest.mark.usefixtures("few_digits", "graph_mode")
def test_step_times_of_a_diverging_recipe_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, math.nan])
    network = SimpleNamespace(train_network=lambda *batch: ms.Tensor(next(losses)))
    monkeypatch.setattr("model_zoo.common.factory.build", lambda *given: SimpleNamespace(model=network))
    step = step_times._step_of(small_recipe(), None)
    step()
    with pytest.raises(FloatingPointError, match="sgdm: the loss is nan"):
        step()


@pytest.mark.usefixtures("graph_mode")
def test_a_run_that_diverges_ends_with_an_error(few_digits: DataSet) -> None:  # noqa: F811
    recipe = small_recipe("optimizer.learning_rate=1e30", "mode=pynative")
    schedule = Schedule("constant", 0.0, 1.0)
    result = training.train(recipe, few_digits, Budget(5), 100.0, 1, schedule, 0)
    assert result["error"].startswith("the loss is nan at step")
    assert result["curve"] == []
