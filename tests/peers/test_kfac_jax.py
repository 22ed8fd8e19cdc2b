"""One step against kfac-jax, on the same weights and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ms_kfac
from ms_kfac.optim.base import SecondOrderOptimizer
from tests.peers.network import (
    BATCH,
    DAMPING,
    FEATURES,
    FILTERS,
    IMAGE,
    LAYERS,
    PARTS,
    Step,
    batch,
    last_step,
)

jax = pytest.importorskip("jax", reason="the extra peers is not installed")
kfac_jax = pytest.importorskip("kfac_jax", reason="the extra peers is not installed")


def loss(weights: dict[str, dict[str, Any]], data: tuple[Any, Any]) -> Any:
    """The network with softmax cross-entropy; the first axis of a dense weight is its input there."""
    images, labels = data
    x = jax.lax.conv_general_dilated(
        images, weights["conv"]["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.numpy.tanh(x + weights["conv"]["bias"])
    x = x.reshape(BATCH, FEATURES)
    x = jax.numpy.tanh(x @ weights["hidden"]["weight"] + weights["hidden"]["bias"])
    logits = x @ weights["head"]["weight"] + weights["head"]["bias"]
    kfac_jax.register_softmax_cross_entropy_loss(logits, targets=labels)
    chosen = jax.numpy.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -chosen.mean()


def to_jax(name: str, weight: np.ndarray) -> Any:
    """(O, C, H, W) to HWIO, and a dense layer's features from channels first to channels last."""
    if weight.ndim == 4:
        return jax.numpy.asarray(weight.transpose(2, 3, 1, 0), "float32")
    if name == "hidden.weight":
        weight = weight.reshape(len(weight), FILTERS, *IMAGE).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return jax.numpy.asarray(weight.T if weight.ndim == 2 else weight, "float32")


def from_jax(name: str, weight: Any) -> np.ndarray:
    """The inverse of `to_jax`."""
    array = np.asarray(weight, np.float64)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name == "hidden.weight":
        return array.T.reshape(-1, *IMAGE, FILTERS).transpose(0, 3, 1, 2).reshape(array.shape[1], -1)
    return array.T if array.ndim == 2 else array


def their_step(step: Step, exact: bool) -> Step:
    """Their first step from the same weights.

    In this mode they divide the Fisher once more by the number of samples.
    """
    images, labels = batch()
    data = (images.transpose(0, 2, 3, 1), labels)
    weights = {
        layer: {part: to_jax(f"{layer}.{part}", step.before[f"{layer}.{part}"]) for part in PARTS}
        for layer in LAYERS
    }
    optimizer = kfac_jax.Optimizer(
        jax.value_and_grad(loss),
        l2_reg=0.0,
        estimation_mode="fisher_empirical",
        use_exact_inverses=exact,
        num_burnin_steps=0,
        inverse_update_period=1,
    )
    key = jax.random.PRNGKey(0)
    state = optimizer.init(weights, key, data)
    weights, state, _ = optimizer.step(
        weights, state, key, batch=data, learning_rate=1 / BATCH, momentum=0.0, damping=DAMPING / BATCH
    )
    after = {
        f"{layer}.{part}": from_jax(f"{layer}.{part}", weight)
        for layer, parts in weights.items()
        for part, weight in parts.items()
    }
    return Step(step.before, after, {})


@pytest.mark.parametrize(("method", "exact"), [(ms_kfac.KFAC, False), (ms_kfac.EKFAC, True)])
def test_the_first_step(method: type[SecondOrderOptimizer], exact: bool) -> None:
    """The first step of EKFAC uses the products of the factors' eigenvalues, as their exact inverse does."""
    step = last_step(method)
    theirs = their_step(step, exact)
    for layer in LAYERS:
        expected = theirs.direction(layer)
        # Two float32 results: sums of at most 16 · 30 products, times a condition of at most ‖A‖ / √λ.
        np.testing.assert_allclose(
            step.direction(layer), expected, rtol=0, atol=2e-3 * np.abs(expected).max(), err_msg=layer
        )
