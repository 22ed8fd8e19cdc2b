"""What `pip install .` takes along, and that the package agrees with its metadata."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ms_kfac

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_numpy_2_is_refused() -> None:
    import tomllib

    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    numpy = next(line for line in metadata["project"]["dependencies"] if line.startswith("numpy"))
    assert "<2" in numpy


def test_every_module_is_in_a_package() -> None:
    """A folder without `__init__.py` would be left out of a wheel without a word."""
    for package in ("ms_kfac", "model_zoo"):
        for module in (ROOT / package).rglob("*.py"):
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
