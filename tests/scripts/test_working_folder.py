"""No launcher and no command runs Python files of the folder that it is called in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.traps import set_traps

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "model_zoo/mlp/mlp_mnist14_sgdm.yaml")
# Exit status, and the words that show that the command came that far.
COMMANDS = {
    "train": (["--recipe", RECIPE, "--set", "epochs=none"], 2, "epochs"),
    "eval": (["--checkpoint", "nowhere"], 2, "nowhere"),
    "export": (["--checkpoint", "nowhere", "--output", "x.mindir"], 2, "nowhere"),
    "convert": (["--images", "nowhere", "--output", "out"], 2, "nowhere"),
}
LAUNCHERS = {
    "run_standalone_train.sh": COMMANDS["train"],
    "run_distributed_train.sh": (["--worker-num", "2", *COMMANDS["train"][0]], 2, "epochs"),
    "run_eval.sh": COMMANDS["eval"],
    "prepare_data.sh": (["images", *COMMANDS["convert"][0]], 2, "nowhere"),
    "run_tests.sh": (["--version"], 0, "pytest"),
    "build_docs.sh": (["--no-such-option"], 2, "unknown options"),
    "build_cuda_kernels.sh": (["--list"], None, ""),
    "run_coverage.sh": (["--help"], 0, "bash scripts/run_coverage.sh"),
    "build_wheel.sh": (["--no-such-option"], 2, "unknown option"),
    "run_matrix.sh": (["--no-such-option"], 2, "unknown option"),
    "run_reliability.sh": (["--no-such-option"], 2, "unrecognized arguments"),
}


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder with a Python file for every name that a program may import."""
    (tmp_path / "trapped").mkdir()
    set_traps(tmp_path / "trapped", tmp_path / "sprung")
    return tmp_path / "trapped"


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MS_KFAC"))}
    environment = {**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def check(done: subprocess.CompletedProcess[str], folder: Path, status: int | None, words: str) -> None:
    shown = done.stdout + done.stderr
    assert not (folder.parent / "sprung").exists(), shown
    assert status is None or done.returncode == status, shown
    assert words in shown


def test_no_launcher_is_left_out() -> None:
    scripts = (ROOT / "scripts").glob("*.sh")
    assert {path.name for path in scripts if path.read_bytes().startswith(b"#!")} == set(LAUNCHERS)


def test_the_traps_work(trapped: Path) -> None:
    run([sys.executable, "-m", "yaml"], trapped)
    assert (trapped.parent / "sprung").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_import_nothing_from_the_working_folder(name: str, trapped: Path, tmp_path: Path) -> None:
    arguments, status, words = COMMANDS[name]
    # As pip writes it.
    script = "import sys\nfrom model_zoo.__main__ import main\nsys.exit(main())\n"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ms-kfac-zoo").write_text(script)
    command = [sys.executable, str(tmp_path / "bin/ms-kfac-zoo"), name, *arguments]
    check(run(command, trapped, PYTHONPATH=str(ROOT)), trapped, status, words)


# All launchers make the search path in the same way.
PATHS = [(script, f"{ROOT}") for script in LAUNCHERS]
PATHS += [("run_eval.sh", f":{ROOT}"), ("run_eval.sh", f"::{ROOT}:")]


@pytest.mark.parametrize(("script", "path"), PATHS)
def test_launchers_import_nothing_from_the_working_folder(script: str, path: str, trapped: Path) -> None:
    arguments, status, words = LAUNCHERS[script]
    command = ["bash", str(ROOT / "scripts" / script), *arguments]
    # Without nvcc, which is then looked for among the packages.
    variables = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}
    done = run(command, trapped, MS_KFAC_PYTHON=sys.executable, **variables)
    check(done, trapped, status, words)


def test_a_folder_of_cdpath_is_not_taken_for_the_project(tmp_path: Path) -> None:
    (tmp_path / "project").symlink_to(ROOT)
    (tmp_path / "other/project/scripts").mkdir(parents=True)
    command = ["bash", "project/scripts/run_eval.sh", *COMMANDS["eval"][0]]
    variables = {"PYTHONPATH": str(ROOT), "CDPATH": str(tmp_path / "other")}
    done = run(command, tmp_path, MS_KFAC_PYTHON=sys.executable, **variables)
    check(done, tmp_path / "project", *COMMANDS["eval"][1:])


def test_the_set_up_imports_nothing_from_the_working_folder(trapped: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "scripts", project / "scripts")
    for folder in ("interface", "cpu"):
        (project / "ms_kfac/kernels" / folder).mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py"):
        (project / name).touch()
    command = ["bash", "../project/scripts/run_eval.sh", "--checkpoint", "x"]
    done = run(command, trapped, PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_NO_BUILD_ISOLATION="0")
    check(done, trapped, 1, "pip could not install ms_kfac[zoo]")
