"""The tests of ``tests/kernels/cuda`` on a GPU, with PyTorch's memory and streams.

They are skipped without a GPU, PyTorch or the built library. They do not need MindSpore. On a machine without
MindSpore, run

    python -m pytest --confcutdir=tests/gpu tests/gpu
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.support.aot import ROOT, AotLibrary, compile_attributes

LIBRARY = ROOT / "ms_kfac" / "kernels" / "_cuda.so"


def why_not() -> str:
    """Returns why the tests cannot run here; empty if they can."""
    try:
        import torch
    except ImportError:
        return "needs a GPU and PyTorch with CUDA; PyTorch is not installed"
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    if not LIBRARY.exists():
        return "the kernels are not built: bash scripts/build_cuda_kernels.sh"
    if shutil.which("g++") is None:
        return "no C++ compiler"
    return ""


@pytest.fixture(scope="session")
def operators(tmp_path_factory: pytest.TempPathFactory) -> AotLibrary:
    """The operators of the built library, on GPU tensors."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("attributes")
    return AotLibrary(LIBRARY, compile_attributes(folder), device="cuda")


@pytest.fixture
def schedule() -> int:
    """Placeholder: the hardware schedules blocks."""
    return 0


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with a fixed seed."""
    return np.random.default_rng(20151)
