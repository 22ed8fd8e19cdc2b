"""The comparison: equal grids, held-out images, a log that continues, and its runs."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.comparison import __main__ as command
from benchmarks.comparison import runs, step_times, tasks
from benchmarks.comparison.budget import COSINE, ONE_CYCLE, Budget, read_budget, read_budgets
from benchmarks.comparison.grid import DERIVED, POINTS, Method
from benchmarks.comparison.step_times import step_times_log
from benchmarks.comparison.tasks import RESULTS, TASKS, recipe_of, settings_of, setup_of
from benchmarks.support.run_log import RunLog
from model_zoo.common.checkpoint.resume import recipe_to_json
from model_zoo.common.methods import METHODS
from model_zoo.common.options.optimizers import OPTIMIZERS
from model_zoo.common.recipe import load_recipe
from tests.model_zoo.conftest import few_digits  # noqa: F401


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


@pytest.mark.parametrize("task", TASKS)
def test_the_default_is_kfac_with_a_learning_rate_and_nothing_else(task: str) -> None:
    recipe = load_recipe(recipe_of(task, "kfac-default"), settings_of(task, "kfac-default", []))
    assert recipe.optimizer == OPTIMIZERS["kfac"](name="kfac", learning_rate=0.1)


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


def test_committed_step_times_serve_the_methods_that_have_them() -> None:
    for task in ("gpt_stdlib", "vit_digits", "autoencoder_mnist"):
        log = step_times_log(RESULTS, task)
        rows = [
            log.find(method=name, settings="", setup=setup_of(task, name, [], tuned=False))
            for name in TASKS[task].compared
        ]
        assert all(row is not None and float(row["step_ms"]) > 0 for row in rows)


@pytest.mark.parametrize("task", [task for task in TASKS if (RESULTS / f"{task}.csv").exists()])
def test_committed_runs_are_those_of_the_present_recipes(task: str) -> None:
    rows = RunLog(RESULTS / f"{task}.csv", runs.COLUMNS, runs.KEY).rows()
    assert rows
    for row in rows:
        settings = [*row["settings"].split(), *row["point"].split()]
        assert row["setup"] == setup_of(task, row["method"], settings), row["method"]


def test_a_file_tells_runs_apart_by_split_and_setup(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "new.csv", runs.COLUMNS, runs.KEY)
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
    untuned = setup_of("convnet_cifar10", "kfac", (), tuned=False)
    assert found(text.replace("# one", "# two").replace("epochs: 3", "epochs: 4"), "seed=2") == first
    assert found(text.replace("damping: 0.1", "damping: 0.2")) != first
    assert found(text, "optimizer.damping=0.2") != first
    assert setup_of("convnet_cifar10", "kfac", ["optimizer.damping=0.2"], tuned=False) == untuned
    assert setup_of("convnet_cifar10", "kfac", ["optimizer.momentum=0.8"], tuned=False) != untuned
    for name, value in (("held_out", 10), ("schedule", ONE_CYCLE), ("train_images", 5)):
        changed = {**TASKS["convnet_cifar10"].__dict__, name: value}
        with monkeypatch.context() as patch:
            patch.setitem(TASKS, "convnet_cifar10", tasks.Task(**changed))
            assert found(text) != first


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
    assert Budget(4).steps(0.3, 5, 100, warm_up_seconds=1.0) == 10
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


DESCRIBED = {"commit": "c", "date": "d", "machine": {"processor": "p", "cpus": 2}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "describe_run", lambda: DESCRIBED)


def write_step_times(folder: Path, task: str, **milliseconds: float) -> None:
    log = step_times_log(folder, task)
    for method, step_ms in milliseconds.items():
        row = {"method": method, "settings": "", "step_ms": step_ms, "compile_seconds": 1.0}
        row["warm_up_seconds"] = 0.5 if method == "kfac" else 0.0
        log.append({**row, "setup": setup_of(task, method, [], tuned=False)})


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
    text = (tmp_path / "convnet_cifar10_adamw_kfac.md").read_text(encoding="utf-8")
    assert "Trials made: 0 of 24, 12 per method, 2 s each, seed 1." in text
    command.main([*arguments, "--seeds", "2"])
    assert len(commands) == 2 * 12 + 2 * 2 * 2
    assert commands[0][3:9] == ["--task", "convnet_cifar10", "--method", "adamw", "--split", "validation"]
    assert [value_of(made, "--step-ms") for made in commands[:2]] == ["200.0", "250.0"]
    assert [value_of(made, "--warm-up-seconds") for made in commands[:2]] == ["0.0", "0.5"]
    assert [value_of(made, "--budget") for made in commands[22:]] == ["2s", "2s", *["4s"] * 4, *["8s"] * 4]
    assert [value_of(made, "--evaluations") for made in commands[23:25]] == ["3", "24"]
    assert {value_of(made, "--split") for made in commands[24:]} == {"test"}
    command.main([*arguments, "--seeds", "2"])
    assert len(commands) == 32
    command.main([*arguments, "--seeds", "3"])
    assert len(commands) == 36
    text = (tmp_path / "convnet_cifar10_adamw_kfac.md").read_text(encoding="utf-8")
    assert "| kfac | damping=0.01 kl_clip=0.0005 weight_decay=0.0005 (edge: damping) | 250.0 |" in text
    assert "| adamw | learning_rate=0.008 weight_decay=0.05 (edge: learning_rate) | 200.0 |" in text
    assert "| adamw | learning_rate=0.004 weight_decay=0.5 | RuntimeError: broken |  | 0 |" in text
    finals, target = pictures[-1]
    assert {name: len(rows) for name, rows in finals.items()} == {"adamw": 6, "kfac": 6}
    assert target == tmp_path / "convnet_cifar10_adamw_kfac.png"
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


def test_tables_of_some_methods_leave_those_of_all_alone(tmp_path: Path) -> None:
    settings = "network.depth=2 epochs=3"
    log = step_times_log(tmp_path, "vit_digits")
    for method in TASKS["vit_digits"].methods:
        setup = setup_of("vit_digits", method, settings.split(), tuned=False)
        log.append({"method": method, "settings": settings, "step_ms": 100.0, "setup": setup})
    arguments = ["--task", "vit_digits", "--output", str(tmp_path), "--tables-only"]
    arguments += ["--set", "network.depth=2", "--set", "epochs=3"]
    every = ",".join(TASKS["vit_digits"].methods)
    for methods, name in (("", "vit_digits"), (every, "vit_digits"), ("kfac,sgdm", "vit_digits_sgdm_kfac")):
        command.main([*arguments, "--methods", methods])
        path = tmp_path / f"{name}.md"
        assert path.read_text(encoding="utf-8").startswith("# vit_digits, network.depth=2, epochs=3\n")
        assert [path] == list(tmp_path.glob("*.md"))
        path.unlink()


@pytest.mark.usefixtures("machine")
def test_a_run_that_takes_too_long_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: list[str], **options: float) -> None:
        raise subprocess.TimeoutExpired(arguments, options["timeout"])

    monkeypatch.setattr(runs.subprocess, "run", run)
    write_step_times(tmp_path, "vit_digits", sgdm=100.0)
    command.main(["--task", "vit_digits", "--methods", "sgdm", "--budget", "1s", "--output", str(tmp_path)])
    text = (tmp_path / "vit_digits_sgdm.md").read_text(encoding="utf-8")
    assert text.count("not finished after 3600 s") == 12
    assert runs.Plan("a", "p", 1, Budget(10, "epochs"), "test", 1).timeout == 36_000


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("status", "output", "sentence"),
    [
        (-9, "", "seed 1, 1 s was ended by SIGKILL, as when memory is short; it has no result"),
        (2, "noise\nerror: MNIST needs --data-dir.\n", "could not start: MNIST needs"),
    ],
)
def test_a_run_without_a_result_ends_the_command_and_is_repeated(
    status: int, output: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverged = json.dumps({"steps": 3, "curve": [], "error": "the loss is nan at step 3"})
    results = [
        SimpleNamespace(returncode=0, stdout=diverged, stderr=""),
        SimpleNamespace(returncode=status, stdout="", stderr=output),
        *[SimpleNamespace(returncode=0, stdout=diverged, stderr="")] * 11,
    ]
    monkeypatch.setattr(runs.subprocess, "run", lambda *given, **options: results.pop(0))
    write_step_times(tmp_path, "vit_digits", sgdm=100.0)
    arguments = ["--task", "vit_digits", "--methods", "sgdm", "--budget", "1s", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match=sentence):
        command.main(arguments)
    log = tmp_path / "vit_digits.csv"
    assert log.read_text().count("the loss is nan at step 3") == log.read_text().count("\n") - 1 == 1
    command.main(arguments)
    assert results == []
    assert log.read_text().count("the loss is nan at step 3") == log.read_text().count("\n") - 1 == 12
