"""The CUDA operators on the emulator, built once per test run.

With EMULATOR_RACES=1 in the environment the emulator reports races in all of these tests.
"""

from __future__ import annotations

import os
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
    return emulated_library(
        tmp_path_factory.mktemp("emulated"), races=os.environ.get("EMULATOR_RACES") == "1"
    )


@pytest.fixture(scope="session")
def attributes_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the library that passes attributes to operators."""
    return compile_attributes(tmp_path_factory.mktemp("attributes"))


@pytest.fixture(scope="session")
def operators(emulated_path: Path, attributes_path: Path) -> AotLibrary:
    """The operators of the emulated library."""
    return AotLibrary(emulated_path, attributes_path)


@pytest.fixture(params=[1, 2])
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Runs a test with two schedules: orders of blocks and of the threads within a block, and delays.

    A missing barrier shows where a reader runs before its writer.
    """
    monkeypatch.setenv("EMULATOR_SEED", str(request.param))
    yield request.param
