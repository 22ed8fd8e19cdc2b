"""What `pip install .` takes along, and that the package agrees with its metadata."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import ms_kfac
from ms_kfac.kernels import native_library
from ms_kfac.kernels.cpu_library import CpuLibrary

ROOT = Path(__file__).resolve().parents[2]


def requirement(package: str) -> SpecifierSet:
    """The versions that the wheel asks for."""
    (found,) = re.findall(rf'^    "{package}(.*)",$', (ROOT / "pyproject.toml").read_text(), re.M)
    return SpecifierSet(found)


def test_the_metadata_excludes_numpy_2() -> None:
    assert "1.26.4" in requirement("numpy")
    assert "2.0.0" not in requirement("numpy")


@pytest.mark.parametrize(
    "version",
    ["2.7.0", "2.7.1", "2.7.1.post1", "2.7.2", "2.8.0", "2.9.0", "2.10.0", "2.10.9", "2.11.0", "3.0"],
)
def test_the_kernels_take_the_mindspore_of_the_metadata(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(native_library.SWITCH, raising=False)
    monkeypatch.setattr(native_library.ms, "__version__", version)
    refused = "kernels are tested with" in CpuLibrary().reason
    assert refused == (version not in requirement("mindspore"))


def test_the_matrix_of_the_release_has_the_same_versions_as_the_script() -> None:
    script = (ROOT / "scripts/run_matrix.sh").read_text()
    (versions,) = re.findall(r'^mindspores="(.*)"$', script, re.M)
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    (listed,) = re.findall(r"^        mindspore: \[(.*)\]$", workflow, re.M)
    assert listed.replace('"', "").split(", ") == versions.split()
    assert all(version in requirement("mindspore") for version in versions.split())
    assert versions.startswith(native_library.OLDEST)


# Two packages in front of those that are installed; MindSpore's must not be reached.
NUMPY = "__version__ = '{}'\n"
MINDSPORE = "raise SystemExit('MindSpore was imported')\n"


@pytest.mark.parametrize("version", ["2.0.0", "2.2.6", "3.1"])
def test_numpy_2_is_refused_before_mindspore_is_imported(version: str, tmp_path: Path) -> None:
    finished = import_with(tmp_path, version)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        f"ImportError: numpy: the version must be below 2, got {version}, with which MindSpore's operators "
        f"fail: {shlex.quote(sys.executable)} -m pip install 'numpy<2' mends it"
    )


def test_numpy_1_is_taken(tmp_path: Path) -> None:
    assert import_with(tmp_path, "1.26.4").stderr == "MindSpore was imported\n"


def test_programs_can_take_numpy_2(tmp_path: Path) -> None:
    assert import_with(tmp_path, "2.0.0", MS_KFAC_ALLOW_NUMPY_2="1").stderr == "MindSpore was imported\n"


def import_with(folder: Path, numpy: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "numpy.py").write_text(NUMPY.format(numpy))
    (folder / "mindspore.py").write_text(MINDSPORE)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", **variables}
    return subprocess.run(
        [sys.executable, "-c", "import ms_kfac"], env=environment, cwd=folder, capture_output=True, text=True
    )


def test_every_module_is_in_a_package() -> None:
    """A folder without `__init__.py` would be left out of a wheel without a word."""
    for module in (ROOT / "ms_kfac").rglob("*.py"):
        assert (module.parent / "__init__.py").exists(), module


def test_typed_and_versioned() -> None:
    assert (Path(ms_kfac.__file__).parent / "py.typed").exists()
    assert ms_kfac.__version__ == "0.1.0"


def test_every_public_name_is_there_and_documented() -> None:
    for name in ms_kfac.__all__:
        value = getattr(ms_kfac, name)
        assert name == "__version__" or value.__doc__, name


@pytest.mark.parametrize(
    "script",
    [
        "scripts/build_cuda_kernels.sh",
        "scripts/build_docs.sh",
        "scripts/run_standalone_train.sh",
        "scripts/run_tests.sh",
        ".ci/run",
    ],
)
def test_launchers_are_executable(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
