"""The CUDA operators on a GPU: ``tests/kernels/cuda`` once more, with PyTorch's memory and streams.

Without a GPU, PyTorch or the built library they are skipped. MindSpore is not needed; on a machine without
it,

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
    """Why the tests can't run here; empty where they can."""
    try:
        import torch
    except ImportError:
        return "needs a GPU and PyTorch for CUDA, which is not installed"
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU"
    if not LIBRARY.exists():
        return "the kernels are not built: bash scripts/build_cuda_kernels.sh"
    if shutil.which("g++") is None:
        return "no C++ compiler"
    return ""


@pytest.fixture(scope="session")
def operators(tmp_path_factory: pytest.TempPathFactory) -> AotLibrary:
    """The operators of the built library, on tensors of the GPU."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder: Path = tmp_path_factory.mktemp("attributes")
    return AotLibrary(LIBRARY, compile_attributes(folder), device="cuda")


@pytest.fixture
def order() -> str:
    """A GPU has an order of its own."""
    return "gpu"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20151)
