"""The CUDA operators on the emulator, built once per test run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.support.aot import AotLibrary, compile_attributes
from tests.support.cuda_emulator import emulated_library


@pytest.fixture(scope="session")
def emulated_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the library of emulated kernels."""
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    return emulated_library(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="session")
def operators(emulated_path: Path) -> AotLibrary:
    """The operators of the emulated library."""
    return AotLibrary(emulated_path, compile_attributes(emulated_path.parent))


@pytest.fixture(params=["forwards", "backwards"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test with both orders of blocks and of the threads within a block.

    One of the orders reveals a missing barrier, and code that assumes that the last block finishes last.
    """
    monkeypatch.setenv("EMULATOR_ORDER", request.param)
    yield request.param
