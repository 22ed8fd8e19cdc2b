"""Whole training steps with the CUDA operators: MindSpore on a CPU calls the emulated library.

Attributes, the order of inputs and outputs, workspaces and in-place outputs come from MindSpore here, not
from a test. Device memory and streams are not covered.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

import ms_kfac
from ms_kfac.kernels.registry import REGISTRY
from tests.gpu_backend.train import Words
from tests.support.bank import randomise
from tests.support.forms import operators_of
from tests.support.loops import train_by
from tests.support.methods import INTERVALS, METHODS
from tests.support.networks import SmallNet, batches, weights_of

# Operators that a method must have called for the comparison to be meaningful.
USED = {
    "KFAC": {
        *("kronecker_statistics", "commit_statistics", "measure_gradients"),
        *("kronecker_refresh", "kronecker_precondition", "momentum_step"),
    },
    "TKFAC automatic": {"trace_restricted_statistics", "trace_restricted_refresh"},
    "SMKFAC": {"sherman_morrison_statistics", "sherman_morrison_refresh"},
    "SKFAC": {"skfac_statistics", "skfac_refresh", "skfac_precondition"},
    "EKFAC": {"eigenbasis_statistics", "eigenbasis_refresh", "eigenbasis_precondition"},
    "SPNGD": {"unit_wise_statistics", "kronecker_statistics"},
    "THOR": {"block_split_refresh", "kronecker_precondition"},
}


class Emulated:
    """The emulated library, used instead of the CPU library. Collects the operators created from it."""

    def __init__(self, path: Path) -> None:
        self.handle = handle = ctypes.CDLL(str(path))
        self.path = str(path)
        self.exported = {name for name, function in REGISTRY.items() if hasattr(handle, function)}
        self.created: set[str] = set()

    def exports(self, function: str) -> bool:
        return hasattr(self.handle, function)

    def fallback_reason(self, name: str, device: str) -> str:
        if name not in self.exported:
            return "not in the emulated library"
        self.created.add(name)
        return ""


@pytest.fixture
def library(emulated_path: Path, monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """The emulated library, with covariances in the precision of the CPU kernels."""
    monkeypatch.setenv("MS_KFAC_PRECISION", "float32")
    return Emulated(emulated_path)


def trained(name: str, loop: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the weights before and after a few steps that reach every branch of the method.

    EKFAC's factors need full rank. In a null space rounding alone changes the basis, and with it the second
    moments of the next batch. The widest factor has 33 rows.
    """
    method, options = METHODS[name]
    net = SmallNet()
    start = weights_of(net)
    optimizer = method(net, 0.05, damping=0.05, weight_decay=1e-3, **options)
    train_by(loop, net, optimizer, batches(5, size=64 if name == "EKFAC" else 8))
    return start, weights_of(net)


def compare(name: str, start: dict[str, np.ndarray], found: dict[str, np.ndarray], weights: dict) -> None:
    """Compares weights relative to their movement: float32 ε through five steps of products and solves."""
    for key, weight in weights.items():
        moved = np.abs(weight - start[key]).max()
        assert moved > 1e-4, f"{key} did not move, so the comparison is empty"
        np.testing.assert_allclose(found[key], weight, rtol=0, atol=1e-3 * moved, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", USED)
def test_training_on_the_emulator_equals_the_cpu(name: str, library: Emulated) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        _, weights = trained(name, "cell")
        with operators_of(library, library.fallback_reason):
            start, found = trained(name, "cell")
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert USED[name] <= library.created
    compare(name, start, found, weights)


def trained_words() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same of a network with an embedding and a layer normalization."""
    net = Words()
    randomise(net, np.random.default_rng(0))
    start = weights_of(net)
    optimizer = ms_kfac.KFAC(net, 0.05, normalization="unit_wise", sharing="reduce", **INTERVALS)
    rng = np.random.default_rng(1)
    data = [(rng.integers(0, 7, (8, 3)).astype(np.int32), rng.integers(0, 5, 8)) for _ in range(5)]
    train_by("functional", net, optimizer, [(ids, labels.astype(np.int32)) for ids, labels in data])
    return start, weights_of(net)


def test_an_embedding(library: Emulated) -> None:
    _, weights = trained_words()
    with operators_of(library, library.fallback_reason):
        start, found = trained_words()
    assert "embedding_statistics" in library.created
    compare("embedding", start, found, weights)


def test_a_run_in_pynative_mode(library: Emulated) -> None:
    _, weights = trained("SMKFAC", "functional")
    with operators_of(library, library.fallback_reason):
        start, found = trained("SMKFAC", "functional")
    assert USED["SMKFAC"] <= library.created
    compare("SMKFAC", start, found, weights)
