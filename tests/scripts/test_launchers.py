"""Output and usage errors of the launchers on a machine without any set-up."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = sorted(
    path.name for path in (ROOT / "scripts").glob("*.sh") if path.read_bytes().startswith(b"#!")
)
DISTRIBUTED = "run_distributed_train.sh"
RECIPE = ["--recipe", "model_zoo/mlp/mlp_mnist14_sgdm.yaml"]


@pytest.fixture
def bare_copy(tmp_path: Path) -> Path:
    """Only the scripts, without .venv or the files to create it from."""
    shutil.copytree(ROOT / "scripts", tmp_path / "project" / "scripts")
    return tmp_path / "project"


def launch(project: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", f"scripts/{script}", *arguments],
        cwd=project,
        # No Python either: a script that needs one fails with another message.
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHON": "/nonexistent/python"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_launchers_are_the_documented_ones() -> None:
    assert {"prepare_data.sh", DISTRIBUTED, "run_eval.sh", "run_standalone_train.sh", "run_tests.sh"} < set(
        LAUNCHERS
    )


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("script", LAUNCHERS)
def test_help_needs_nothing_and_changes_nothing(script: str, option: str, bare_copy: Path) -> None:
    before = everything_in(bare_copy)
    done = launch(bare_copy, script, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"bash scripts/{script}" in done.stdout
    assert "set -euo" not in done.stdout
    assert everything_in(bare_copy) == before


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_launcher_is_executable(script: str) -> None:
    assert (ROOT / "scripts" / script).stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        (DISTRIBUTED, RECIPE, "--worker-num is missing"),
        (DISTRIBUTED, ["--worker-num"], "--worker-num needs a value."),
        (
            DISTRIBUTED,
            ["--worker-num", "two", *RECIPE],
            "--worker-num is two; accepted: an integer of at least 1.",
        ),
        (
            DISTRIBUTED,
            ["--worker-num=2", "--device=TPU", *RECIPE],
            "--device is TPU; accepted: CPU or GPU.",
        ),
        (
            DISTRIBUTED,
            ["--worker-num", "4", "--local-worker-num", "3", *RECIPE],
            "--local-worker-num is 3; accepted: a divisor of --worker-num 4.",
        ),
        (
            DISTRIBUTED,
            ["--worker-num", "4", "--local-worker-num", "2", *RECIPE],
            "2 machines need --node-rank, --master-addr and --master-port.",
        ),
        (
            DISTRIBUTED,
            ["--worker-num", "2", "--node-rank", "1", *RECIPE],
            "--node-rank is 1; accepted: an integer from 0 to 0.",
        ),
        (
            DISTRIBUTED,
            ["--worker-num", "2", "--master-port", "80", *RECIPE],
            "--master-port is 80; accepted: an integer from 1024 to 65535.",
        ),
        ("prepare_data.sh", [], "name the data: mnist, cifar10, cifar100 or images"),
        ("prepare_data.sh", ["svhn"], "the data is svhn; accepted: mnist, cifar10, cifar100 or images."),
        ("prepare_data.sh", ["mnist", "--archive", "x"], "unknown option --archive"),
        ("prepare_data.sh", ["mnist", "--output"], "--output needs a value."),
        ("build_cuda_kernels.sh", ["--arch", "80"], "unknown option --arch"),
    ],
)
def test_usage_errors_are_reported_before_the_setup(
    script: str, arguments: list[str], sentence: str, bare_copy: Path
) -> None:
    before = everything_in(bare_copy)
    done = launch(bare_copy, script, *arguments)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert everything_in(bare_copy) == before


def test_named_interpreter_is_used_unchanged(bare_copy: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    # Accepts the version check, and echoes all other commands.
    interpreter.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$PYTHONPATH: $*"\n')
    interpreter.chmod(0o755)
    for script, module, given in (
        ("run_standalone_train.sh", "train", "--recipe"),
        ("run_standalone_train.sh", "train", "--resume"),
        ("run_eval.sh", "evaluate", "--recipe"),
    ):
        done = subprocess.run(
            ["bash", f"scripts/{script}", given, "a b.yaml"],
            cwd=bare_copy,
            env={"PATH": "/usr/bin:/bin", "MS_KFAC_PYTHON": str(interpreter)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"{bare_copy}: -m model_zoo.{module} {given} a b.yaml\n", done.stderr
    assert not (bare_copy / ".venv").exists()


def test_without_a_recipe_the_digits_are_learned(bare_copy: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    # Fails, and echoes the command.
    interpreter.write_text('#!/bin/sh\n[ "$1" = -c ] || { echo "$*"; exit 3; }\n')
    interpreter.chmod(0o755)
    for script, arguments in (("run_standalone_train.sh", []), (DISTRIBUTED, ["--worker-num", "2"])):
        done = subprocess.run(
            ["bash", f"scripts/{script}", *arguments],
            cwd=bare_copy,
            env={"PATH": "/usr/bin:/bin", "MS_KFAC_PYTHON": str(interpreter)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        assert f"--recipe {bare_copy}/model_zoo/resnet/resnet20_digits_kfac.yaml" in done.stdout
    assert not (bare_copy / "runs").exists()
