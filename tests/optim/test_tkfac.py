"""TKFAC's own options, and whole steps against the float64 reference under both dampings and averages."""

from __future__ import annotations

import re

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.momentum import Momentum
from tests.oracle.network import differentiate
from tests.oracle.tkfac import ReferenceTKFAC
from tests.support.loops import train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, small_net_reference, weights_of

STEPS = 5
# Three batches of statistics; a decay below 1 - 1/2, so that the past fades from the second on.
INTERVALS = {"factor_interval": 2, "inverse_interval": 2}
DECAY = 0.3

BAD = [
    ("damping_mode", "auto", "'automatic'"),
    ("nu", 0.0, "(0"),
    ("nu", "1", "number"),
    ("nu", float("inf"), "number"),
    ("ema", "papers", "'paper'"),
    ("automatic_form", "eq15", "'printed'"),
    ("max_expansion", 0.5, "[1"),
    ("damping", -1.0, "positive"),
]


@pytest.mark.parametrize(("option", "value", "accepted"), BAD, ids=[f"{o}={v!r}" for o, v, _ in BAD])
def test_refused_by_name(option: str, value: object, accepted: str) -> None:
    with pytest.raises((TypeError, ValueError), match=option) as error:
        ms_kfac.TKFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1, **{option: value})
    assert repr(value) in str(error.value)
    assert accepted in str(error.value).replace(repr(value), "")


def test_repr_names_the_damping_in_use() -> None:
    net = SmallNet()
    assert re.search("damping normal, average 'partial_trace'", repr(ms_kfac.TKFAC(net, 0.1)))
    with pytest.warns(UserWarning, match="took over"):
        automatic = ms_kfac.TKFAC(net, 0.1, damping_mode="automatic", nu=0.25, ema="paper")
    assert "damping automatic (printed, nu 0.25, lambda not used), average 'paper'" in repr(automatic)
    assert repr(automatic) in automatic.summary().replace("\n ", "")
    assert "2 x Phi 12, Psi 2" in automatic.summary()


# What the optimizer and the reference are given. ν is above the traces of some layers (3 to 15), so that β
# is away from 1 in the automatic runs; the weaker damping of the printed form needs fewer steps' drift.
RUNS = {
    "normal": ({"damping": 0.05}, {"damping": 0.05}),
    "normal, paper": ({"damping": 0.05, "ema": "paper"}, {"damping": 0.05, "paper": True}),
    "automatic": ({"damping_mode": "automatic", "nu": 8.0}, {"damping": None, "nu": 8.0}),
    "automatic, paper": (
        {"damping_mode": "automatic", "nu": 8.0, "ema": "paper"},
        {"damping": None, "nu": 8.0, "paper": True},
    ),
    "homogeneous, paper": (
        {"damping_mode": "automatic", "nu": 8.0, "ema": "paper", "automatic_form": "homogeneous"},
        {"damping": None, "nu": 8.0, "paper": True, "homogeneous": True},
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_steps_equal_the_reference(mode: int, name: str) -> None:
    options, reference_options = RUNS[name]
    data, net = batches(STEPS), SmallNet()
    weights = start = weights_of(net)
    reference = ReferenceTKFAC(Momentum(0.9), **reference_options, **INTERVALS, factor_decay=DECAY)
    modules = small_net_reference()
    for x, y in data:
        _, gradients, _ = differentiate(modules, weights, x, y)
        weights = reference.step(weights, gradients, modules, 0.1)
    optimizer = ms_kfac.TKFAC(net, 0.1, **options, **fixed_intervals(**INTERVALS), factor_decay=DECAY)

    train_by("functional" if name.startswith("normal") else "cell", net, optimizer, data)

    if "nu" in options:
        assert reference.expansion > 1.2, "β is not away from 1"
        np.testing.assert_allclose(optimizer.expansion.asnumpy(), reference.expansion, rtol=1e-3)
    for key, weight in weights_of(net).items():
        moved = np.abs(weights[key] - start[key]).max()
        assert moved > 1e-4, f"{key} did not move, so the comparison is empty"
        # float32 ε (1e-7, sums 1e-6) times a condition of about 1e3.
        np.testing.assert_allclose(weight, weights[key], rtol=0, atol=2e-3 * moved, err_msg=key)
    for layer in SMALL_NET_LAYERS:
        found = optimizer.factors(layer)
        for letter, index in (("Phi", 0), ("Psi", 1)):
            matrices = np.stack([average.values[index].value for average in reference.averages[layer]])
            traces = np.trace(matrices, axis1=-2, axis2=-1)
            expected = (matrices / traces[:, None, None]).reshape(found[letter].shape)
            np.testing.assert_allclose(found[letter], expected, rtol=0, atol=1e-3 * np.abs(expected).max())
        if options.get("ema") == "paper":
            roots = [[np.trace(v.value) for v in a.values[:2]] for a in reference.averages[layer]]
            delta = np.prod(roots, axis=1)
        else:
            delta = np.array([average.values[2].value for average in reference.averages[layer]])
        np.testing.assert_allclose(found["delta"].reshape(-1), delta.reshape(-1), rtol=2e-3)
        block = optimizer.blocks[SMALL_NET_LAYERS.index(layer)]
        np.testing.assert_allclose(float(block.trace().asnumpy()), delta.sum(), rtol=2e-3)
