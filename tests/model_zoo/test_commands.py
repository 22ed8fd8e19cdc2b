"""The commands: exit statuses, error messages, comparison and evaluation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from model_zoo import evaluate, train
from model_zoo.common.comparison import results_table
from model_zoo.common.curves import read_metrics
from tests.model_zoo.synthetic_data import ROOT

MLP = ROOT / "model_zoo/mlp/mlp_mnist14_kfac.yaml"
CIFAR10 = ROOT / "model_zoo/resnet/resnet20_cifar10_sgdm.yaml"
SMALL = ["--set", "epochs=2", "--set", "data.batch_size=10", "--set", "data.evaluation_batch_size=10"]


def run_zoo(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_zoo", name, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_recipe_error_is_reported_before_mindspore_and_data_are_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from model_zoo.train import main; status = main(sys.argv[1:]);"
        "sys.exit(status if not {'mindspore', 'sklearn'} & set(sys.modules) else 99)"
    )
    output = tmp_path / "out"
    arguments = [
        "--recipe",
        CIFAR10,
        "--data-dir",
        "nowhere",
        "--output",
        output,
        "--set",
        "optimizer.momentun=0.9",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert "optimizer.momentun is not a key of a recipe (did you mean optimizer.momentum?)" in sentence
    assert not output.exists()


@pytest.mark.parametrize("command", [train, evaluate])
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["epochs=-3"], "epochs is -3; accepted: an integer of at least 1."),
        (["network.depht=20"], "network.depht is not a key of a recipe (did you mean network.depth?)"),
    ],
)
def test_a_bad_recipe_ends_with_status_2(
    command: object, overrides: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipe", str(CIFAR10), *(part for text in overrides for part in ("--set", text))]
    if command is evaluate:
        arguments += ["--checkpoint", "none.ckpt"]
    assert command.main(arguments) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_missing_recipe_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--recipe", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "error: recipe nowhere.yaml can't be read: No such file or directory.\n"


@pytest.mark.parametrize("command", [train, evaluate])
def test_a_recipe_of_the_zoo_is_found_by_its_name(
    command: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "resnet/sherman_morrison/resnet20w4_cifar10_sgdm"
    # A file of the same name is named with its suffix.
    (tmp_path / f"{name}.yaml").parent.mkdir(parents=True)
    (tmp_path / f"{name}.yaml").write_text("mine")
    checkpoint = ["--checkpoint", "x"] if command is evaluate else []
    assert (
        command.parse_arguments(["--recipe", name, *checkpoint]).recipe == ROOT / "model_zoo" / f"{name}.yaml"
    )
    assert command.parse_arguments(["--recipe", f"{name}.yaml", *checkpoint]).recipe == Path(f"{name}.yaml")
    with pytest.raises(SystemExit) as stopped:
        command.main(["--recipe", "resnet20_digits_kfac", *checkpoint])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(
        "argument --recipe: must be a .yaml file or a name that `ms-kfac-zoo recipes` lists, such as "
        "resnet/resnet20_digits_kfac; got resnet20_digits_kfac\n"
    )


def test_a_missing_data_folder_ends_with_one_sentence_and_status_2(tmp_path: Path) -> None:
    done = run_zoo(
        "train", "--recipe", CIFAR10, "--data-dir", tmp_path / "nowhere", "--output", tmp_path / "out"
    )
    assert done.returncode == 2
    assert done.stderr == f"error: CIFAR-10 was not found: {tmp_path / 'nowhere'} is not a folder.\n"


def test_a_truncated_data_file_ends_with_one_sentence_and_status_2(
    cifar10_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cifar10_folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-100])
    arguments = [
        "--recipe",
        str(CIFAR10),
        "--data-dir",
        str(cifar10_folder),
        "--output",
        str(tmp_path / "out"),
    ]
    assert train.main(arguments) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert str(path) in sentence
    assert "is it truncated?" in sentence


def test_invalid_command_lines_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train.main(["--recipe", str(MLP), "--log-every", "0"])
    assert "argument --log-every: must be at least 1" in capsys.readouterr().err
    assert train.main(["--recipe", str(MLP), "--compare", "sgdm,lamb"]) == 2
    assert "--compare names 'lamb'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("optimizer", "override", "sentence"),
    [
        (
            "skfac",
            "epochs=1",
            "optimizer.name is 'skfac'; accepted with --distributed: one of sgdm, adam, adamw, kfac",
        ),
        (
            "tkfac",
            "optimizer.ema=paper",
            "optimizer.ema is 'paper'; accepted with --distributed: partial_trace.",
        ),
        (
            "kfac",
            "parallel.collective=reduce_scatter",
            "MindSpore does not support on CPU; accepted there: auto or",
        ),
    ],
)
def test_undistributable_options_are_refused_before_workers_start(
    optimizer: str, override: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ROOT / "model_zoo/resnet" / f"resnet20_digits_{optimizer}.yaml"
    arguments = ["--recipe", str(recipe), "--set", override, "--check"]
    assert train.main(arguments) == 0
    assert train.main([*arguments, "--distributed"]) == 2
    assert sentence in capsys.readouterr().err


def test_compare_refuses_an_override_that_a_sibling_recipe_rejects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--recipe", str(MLP), "--compare", "kfac,sgdm", "--set", "optimizer.damping=0.1"]
    assert train.main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "mlp_mnist14_sgdm.yaml: optimizer.damping is not a key" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_compare_runs_each_optimizer_and_evaluate_agrees_with_the_last_epoch(
    mnist_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    common = ["--recipe", MLP, "--data-dir", mnist_folder]
    done = run_zoo("train", *common, "--compare", "sgdm,kfac", "--output", output, "--no-progress", *SMALL)
    assert done.returncode == 0, done.stderr
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    for optimizer in ("sgdm", "kfac"):
        assert {path.name for path in (output / optimizer).iterdir()} >= {
            "metrics.jsonl",
            "run.json",
            "curves.png",
        }
        assert re.search(rf"^ *{optimizer} +2 ", done.stdout, re.MULTILINE)
    assert done.stdout.count("epoch 2/2") == 2

    last = read_metrics(output / "kfac")[-1]
    again = run_zoo("eval", *common, "--checkpoint", output / "kfac" / "network.ckpt", *SMALL)
    assert again.stdout == f"test loss {last['test_loss']:.4f}  test accuracy {last['test_accuracy']:.4f}\n"

    other = run_zoo("eval", *common, "--checkpoint", output / "kfac" / "run.json", *SMALL)
    assert other.returncode == 2
    assert (
        "run.json can't be read: it is damaged or not a MindSpore checkpoint" in other.stderr.splitlines()[-1]
    )
    missing = run_zoo("eval", *common, "--checkpoint", tmp_path / "none.ckpt", *SMALL)
    assert (missing.returncode, missing.stderr) == (
        2,
        f"error: checkpoint {tmp_path / 'none.ckpt'} does not exist.\n",
    )


def test_a_failed_run_stops_the_comparison(tmp_path: Path) -> None:
    arguments = [
        "--recipe",
        MLP,
        "--data-dir",
        tmp_path,
        "--compare",
        "sgdm,kfac",
        "--output",
        tmp_path / "out",
    ]
    done = run_zoo("train", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("error: MNIST was not found: ") == 1


def test_results_table_knows_the_better_direction_of_a_metric() -> None:
    def epochs(metric: str, values: list[float]) -> list[dict[str, float]]:
        common = {"seconds": 3.0, "images_per_second": 100.0, "running_loss": 0.5}
        return [{"epoch": number, metric: value, **common} for number, value in enumerate(values, start=1)]

    up = results_table({"a": epochs("test_accuracy", [0.5, 0.9, 0.8])}, "test_accuracy").splitlines()[1]
    assert up.split() == ["a", "3", "3.0", "100", "0.5000", "0.8000", "0.9000", "2"]
    down = results_table({"a": epochs("train_reconstruction_error", [9, 3, 4])}, "train_reconstruction_error")
    assert down.splitlines()[1].split()[-3:] == ["4.0000", "3.0000", "2"]
