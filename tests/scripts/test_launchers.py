"""Output and usage errors of the launchers on a machine without any set-up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = sorted(
    path.name for path in (ROOT / "scripts").glob("*.sh") if path.read_bytes().startswith(b"#!")
)
# scripts/run_coverage.sh is for developers of the tests.
FOR_ALL_SHELLS = sorted({*LAUNCHERS} - {"run_coverage.sh"})
# A script that needs Python fails with another message.
NO_PYTHON = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHON": "/nonexistent/python"}
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
        env=NO_PYTHON,
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


# `sh` is another shell on some systems, and bash without its extensions on others.
@pytest.mark.parametrize("shell", [["sh"], ["bash", "--posix"]])
@pytest.mark.parametrize("script", FOR_ALL_SHELLS)
def test_sh_and_symbolic_links_do(script: str, shell: list[str], bare_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bare_copy / "scripts" / script)
    done = subprocess.run(
        [*shell, "link", "--help"], cwd=tmp_path, env=NO_PYTHON, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == launch(bare_copy, script, "--help").stdout


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
    # Accepts the checks, and echoes the zoo's commands.
    interpreter.write_text('#!/bin/sh\nshift 2\ncase "$1" in train | eval) echo "$PYTHONPATH: $*" ;; esac\n')
    interpreter.chmod(0o755)
    for script, command, given in (
        ("run_standalone_train.sh", "train", "--recipe"),
        ("run_standalone_train.sh", "train", "--resume"),
        ("run_eval.sh", "eval", "--recipe"),
    ):
        done = subprocess.run(
            ["bash", f"scripts/{script}", given, "a b.yaml"],
            cwd=bare_copy,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": "mine", "MS_KFAC_PYTHON": str(interpreter)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == f"mine: {command} {given} a b.yaml\n", done.stderr
    assert not (bare_copy / ".venv").exists()


def test_without_a_recipe_the_digits_are_learned(bare_copy: Path, tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    # Accepts the checks; echoes the command for training and fails.
    interpreter.write_text('#!/bin/sh\nshift 2\n[ "$1" != train ] || { echo "$*"; exit 3; }\n')
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
        assert "--recipe resnet/resnet20_digits_kfac" in done.stdout
    assert not (bare_copy / "runs").exists()


def write_python(path: Path) -> None:
    """An interpreter of the tests' version, without any package."""
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("run_tests.sh", [], "lacks hypothesis, mindspore, pytest,"),
        ("build_docs.sh", [], "lacks latex2mathml, material,"),
        ("build_wheel.sh", [], "lacks auditwheel, build,"),
        ("run_reliability.sh", [], "lacks hypothesis, mindspore, pytest,"),
        ("run_eval.sh", ["--checkpoint", "x"], "lacks model_zoo, ms_kfac; install ms_kfac[zoo]."),
    ],
)
def test_missing_packages_are_named(
    script: str, arguments: list[str], sentence: str, bare_copy: Path, tmp_path: Path
) -> None:
    write_python(tmp_path / "python")
    done = subprocess.run(
        ["bash", f"scripts/{script}", *arguments],
        cwd=bare_copy,
        env={"PATH": "/usr/bin:/bin", "MS_KFAC_PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_zoo_names_its_missing_packages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "model_zoo", "train", "--resume", str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    missing = "pillow, matplotlib, mindspore, scikit-learn, PyYAML"
    assert done.stderr == f"error: the model zoo needs {missing}; install ms_kfac[zoo].\n"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An interpreter with another zoo, which tells what it was called with."""
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    for name in ("model_zoo", "model_zoo/common", "ms_kfac"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").touch()
    tell = "import sys\ndef main():\n    print('installed:', *sys.argv[1:])\n"
    (packages / "model_zoo/__main__.py").write_text(tell)
    (packages / "model_zoo/common/master_port.py").write_text(tell)
    return tmp_path / "venv/bin/python"


# A clone's own folder is where Python would look first.
@pytest.mark.parametrize("folder", [ROOT, ROOT / "docs"], ids=["root", "below"])
@pytest.mark.parametrize(
    ("script", "arguments", "called"),
    [
        ("run_standalone_train.sh", ["--resume", "x"], "train --resume x"),
        ("run_eval.sh", ["--checkpoint", "x"], "eval --checkpoint x"),
        ("prepare_data.sh", ["images", "--images", "x"], "convert --images x"),
        (
            DISTRIBUTED,
            ["--worker-num", "1", "--resume", "x", "--check"],
            "train --distributed --resume x --check",
        ),
    ],
)
def test_an_installed_zoo_is_not_replaced_by_the_clone(
    script: str, arguments: list[str], called: str, folder: Path, installed: Path
) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / script), *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "MS_KFAC_PYTHON": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"installed: {called}\n", done.stderr


@pytest.mark.parametrize("script", ["run_standalone_train.sh", "run_tests.sh", "build_wheel.sh"])
def test_a_missing_interpreter_is_named(script: str, bare_copy: Path) -> None:
    done = launch(bare_copy, script)
    assert done.returncode == 1
    assert done.stderr == (
        "error: PYTHON=/nonexistent/python is not a Python from 3.9 to 3.12, which MindSpore needs.\n"
    )


@pytest.mark.slow
def test_without_a_network_one_sentence_says_so(bare_copy: Path) -> None:
    for folder in ("interface", "cpu"):
        (bare_copy / "ms_kfac/kernels" / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py"):
        (bare_copy / name).touch()
    done = subprocess.run(
        ["bash", "scripts/run_tests.sh"],
        cwd=bare_copy,
        env={
            **{"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHON": sys.executable},
            # Nothing listens at this port.
            **{"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "1"},
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: pip could not install ms_kfac[test]: its package index can't be reached; its output is in "
        f"{bare_copy}/.venv/install.log\n"
    )
