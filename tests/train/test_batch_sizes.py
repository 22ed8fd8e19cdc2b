"""Batches of several sizes in one run: a smaller last batch of an epoch, and a batch of one sample."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.factors import dense_factors
from tests.support.loops import Batch, cross_entropy, functional_step, run, train_by
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import WIDTHS, Perceptron, vectors, weights_of

# Samples of an epoch, in batches of 6.
SAMPLES = 13


def epoch() -> list[Batch]:
    ((x, y),) = vectors(1, samples=SAMPLES)
    return [(x[i : i + 6], y[i : i + 6]) for i in range(0, SAMPLES, 6)]


def trained(name: str, way: str, data: list[Batch]) -> tuple[nn.Cell, nn.Optimizer]:
    method, options = METHODS[name]
    net = Perceptron(WIDTHS)
    optimizer = method(net, 0.05, damping=0.1, **options)
    train_by(way, net, optimizer, data)
    return net, optimizer


# Each has another statistic: factors, rows of a batch, second moments in an eigenbasis, diagonals.
@pytest.mark.parametrize("name", ["KFAC", "SKFAC", "EKFAC", "SMKFAC"])
def test_an_epoch_with_a_remainder(mode: int, name: str) -> None:
    """`Model.train` with a data set takes the steps of a plain loop; its last batch has one sample."""
    start = weights_of(Perceptron(WIDTHS))
    plain, optimizer = trained(name, "functional", epoch())
    net, by_model = trained(name, "model", epoch())
    for key, weight in weights_of(plain).items():
        moved = np.abs(weight - start[key]).max()
        assert moved > 1e-4, key
        # Float32 rounding, behind damped inverses of condition 1e2 to 1e3.
        np.testing.assert_allclose(weights_of(net)[key], weight, rtol=0, atol=1e-3 * moved, err_msg=key)
    assert optimizer.refreshes() == by_model.refreshes()
    assert by_model.refreshes()["statistics"] == 3
    for layer in optimizer.layers:
        for key, factor in optimizer.factors(layer).items():
            if key.startswith("Q"):
                continue  # An eigenvector's sign is free; the weights above depend on no sign.
            bound = 1e-3 * np.abs(factor).max()
            np.testing.assert_allclose(
                by_model.factors(layer)[key], factor, rtol=0, atol=bound, err_msg=f"{layer} {key}"
            )
    for each in (optimizer, by_model):
        assert {checked.state for checked in each.verification.checked} == {"verified"}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_every_sample_of_an_epoch_has_the_same_weight(mode: int, reduction: str) -> None:
    """Factors of batches of 6, 6 and 1 samples are those of all 13, at weights that stay."""
    net = Perceptron(WIDTHS)
    optimizer = ms_kfac.KFAC(net, 0.0, reduction=reduction, **fixed_intervals(1, 2))
    run(functional_step(net, optimizer, cross_entropy(reduction)), epoch())
    weights = weights_of(net)
    ((x, y),) = vectors(1, samples=SAMPLES)
    hidden = np.tanh(x @ weights["layers.0.weight"].T + weights["layers.0.bias"])
    logits = hidden @ weights["layers.1.weight"].T + weights["layers.1.bias"]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    g = p - np.eye(WIDTHS[-1])[y]
    of_hidden = (g @ weights["layers.1.weight"]) * (1 - hidden**2)
    for layer, inputs, gradients in (("layers.0", x, of_hidden), ("layers.1", hidden, g)):
        for key, factor in zip("AG", dense_factors(inputs, gradients, True)):
            # Float32 ε through sums of 13 products.
            bound = 1e-5 * np.abs(factor).max()
            found = optimizer.factors(layer)[key]
            np.testing.assert_allclose(found, factor, rtol=0, atol=bound, err_msg=f"{layer} {key}")
