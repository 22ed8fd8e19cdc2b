"""Whole training steps with the CUDA operators: MindSpore on a CPU calls the emulated library.

Attributes, the order of inputs and outputs, workspaces and what is written in place are MindSpore's here, not
a test's. What is missing of a GPU is its memory and its streams.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from ms_kfac.kernels.catalogue import CATALOGUE
from tests.support.forms import operators_of
from tests.support.loops import train_by
from tests.support.methods import METHODS
from tests.support.networks import SmallNet, batches, weights_of

# The operators that a method must have called for the comparison to be about them.
USED = {
    "KFAC": {
        *("kronecker_statistics", "commit_statistics", "measure_gradients"),
        *("kronecker_refresh", "kronecker_precondition", "momentum_step"),
    },
    "TKFAC automatic": {"trace_restricted_statistics", "trace_restricted_refresh"},
    "SMKFAC": {"sherman_morrison_statistics", "sherman_morrison_refresh"},
    "SKFAC": {"swift_refresh"},
    "EKFAC": {"eigenbasis_statistics", "eigenbasis_precondition"},
    "THOR": {"block_split_refresh", "kronecker_precondition"},
}


class Emulated:
    """The emulated library in the place of the CPU's; collects the operators that are created from it."""

    def __init__(self, path: Path) -> None:
        self.handle = handle = ctypes.CDLL(str(path))
        self.path = str(path)
        self.exported = {
            name for name, function in CATALOGUE.items() if function and hasattr(handle, function)
        }
        self.created: set[str] = set()

    def composed_because(self, name: str, device: str) -> str:
        if name not in self.exported:
            return "not in the emulated library"
        self.created.add(name)
        return ""


@pytest.fixture
def library(emulated_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """The library, with covariances in the precision of the CPU's."""
    monkeypatch.setenv("MS_KFAC_PRECISION", "float32")
    return Emulated(emulated_path)


def trained(name: str, loop: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The weights before and after a few steps that reach every branch of the method.

    EKFAC's factors need full rank: in a null space rounding alone gives another basis, in which the second
    moments of the next batch are others. The widest has 33 rows.
    """
    method, options = METHODS[name]
    net = SmallNet()
    start = weights_of(net)
    optimizer = method(net, 0.05, damping=0.05, weight_decay=1e-3, **options)
    train_by(loop, net, optimizer, batches(5, size=64 if name == "EKFAC" else 8))
    return start, weights_of(net)


def compare(name: str, start: dict[str, np.ndarray], found: dict[str, np.ndarray], weights: dict) -> None:
    """To how far they moved: float32 ε through five steps of products and solves."""
    for key, weight in weights.items():
        moved = np.abs(weight - start[key]).max()
        assert moved > 1e-4, f"{key} did not move, so the comparison is empty"
        np.testing.assert_allclose(found[key], weight, rtol=0, atol=1e-3 * moved, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", USED)
def test_a_run_is_the_run_of_the_cpu(name: str, library: Emulated) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        _, weights = trained(name, "cell")
        with operators_of(library, library.composed_because):
            start, found = trained(name, "cell")
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert USED[name] <= library.created
    compare(name, start, found, weights)


def test_a_run_in_pynative_mode(library: Emulated) -> None:
    _, weights = trained("SMKFAC", "functional")
    with operators_of(library, library.composed_because):
        start, found = trained("SMKFAC", "functional")
    assert USED["SMKFAC"] <= library.created
    compare("SMKFAC", start, found, weights)
