"""Loops of a user that drop steps whose gradients overflowed, or scale the loss by hand."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import amp, nn, ops

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import (
    Batch,
    assert_same_state,
    checkpoint_of,
    cross_entropy,
    gradient_function,
    state_of,
)
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import WIDTHS, Perceptron, vectors


@pytest.mark.parametrize("name", METHODS)
def test_dropped_steps_leave_no_trace(mode: int, name: str) -> None:
    """`if all finite: optimizer(grads)`, with Inf and NaN where statistics and inverses are due."""
    method, options = METHODS[name]
    net = Perceptron(WIDTHS)
    optimizer = method(net, 0.05, damping=0.1, **options)
    gradient = gradient_function(net, optimizer, cross_entropy())
    start = checkpoint_of(optimizer)
    lost = []
    for value in (np.inf, np.nan):
        x, y = vectors(1, seed=9)[0]
        x[1, 2] = value
        lost.append((x, y))

    def run(batches: list[Batch]) -> None:
        for x, y in batches:
            gradients = gradient(tensor(x), tensor(y))[1]
            if all(bool(ops.isfinite(part).all()) for part in gradients):
                optimizer(gradients)

    first, second, third, fourth = vectors(4)
    run([first, second, third, fourth])
    expected = state_of(optimizer)
    optimizer.restore(start)
    run([lost[0], first, lost[1], lost[0], second, third, lost[1], fourth, lost[0]])
    found = state_of(optimizer)
    # The last batch is staged, and the next step's pass replaces it.
    staged = [
        key for key in expected if key.endswith((".record", "_batch")) and not np.isfinite(found[key]).all()
    ]
    assert staged
    for key in [key for key in expected if key.endswith((".record", "_batch"))]:
        del expected[key], found[key]
    assert_same_state(found, expected)
    assert optimizer.refreshes()["refused"] == 0
    run([first])
    assert all(np.isfinite(value).all() for value in state_of(optimizer).values())


SCALE = 2.0**20


def scaled_loop(net: nn.Cell, optimizer: nn.Optimizer, scaler: amp.LossScaler, *, compiled: bool) -> Any:
    """The loop of MindSpore's documentation."""
    loss = cross_entropy()

    def forward(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return scaler.scale(loss(net(x), y))

    gradient = ms.value_and_grad(forward, None, optimizer.parameters)

    def step(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        _, gradients = gradient(x, y)
        gradients = scaler.unscale(gradients)
        finite = amp.all_finite(gradients)
        if finite:
            optimizer(gradients)
        scaler.adjust(finite)
        return finite

    return ms.jit(step) if compiled else step


def options(**more: Any) -> dict[str, Any]:
    return {"damping": 0.1, "kl_clip": None, **fixed_intervals(1, 2), **more}


def trained(optimizer: nn.Optimizer, net: nn.Cell, batches: list[Batch]) -> None:
    gradient = gradient_function(net, optimizer, cross_entropy())
    for x, y in batches:
        optimizer(gradient(tensor(x), tensor(y))[1])


@pytest.mark.parametrize("compiled", [False, True], ids=["python", "jit"])
def test_a_loss_scaler_by_hand_that_the_optimizer_knows(mode: int, compiled: bool) -> None:
    """A scale of 2²⁰ that grows and shrinks, and a step that overflows: as without a scale."""
    plain = Perceptron(WIDTHS)
    trained(ms_kfac.KFAC(plain, 0.05, **options()), plain, vectors(4))
    net, scaler = Perceptron(WIDTHS), amp.DynamicLossScaler(SCALE, 2, 2)
    optimizer = ms_kfac.KFAC(net, 0.05, loss_scale=scaler, **options())
    step = scaled_loop(net, optimizer, scaler, compiled=compiled)
    lost = vectors(1, seed=9)[0]
    lost[0][0, 0] = np.inf
    batches = vectors(4)
    for x, y in [*batches[:3], lost, batches[3]]:
        step(tensor(x), tensor(y))
    assert float(scaler.scale_value.asnumpy()) == SCALE
    for one, other in zip(net.trainable_params(), plain.trainable_params()):
        # Powers of two change no digit; float32 gradients do not underflow here.
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=0, atol=1e-6)
    assert optimizer.refreshes() == {"statistics": 4, "inverses": 2, "refused": 0}


def test_a_loss_scaler_by_hand_that_the_optimizer_does_not_know(mode: int) -> None:
    """G would be 2⁴⁰ times too large. It is refused with the way out, and the layers are first-order."""
    plain = Perceptron(WIDTHS)
    trained(nn.Momentum(plain.trainable_params(), 0.05, 0.9), plain, vectors(3))
    net, scaler = Perceptron(WIDTHS), amp.DynamicLossScaler(SCALE, 2, 100)
    optimizer = ms_kfac.KFAC(net, 0.05, **options())
    step = scaled_loop(net, optimizer, scaler, compiled=False)
    with pytest.warns(UserWarning, match="pass the scaler as loss_scale=.* The batch is refused") as caught:
        for x, y in vectors(3):
            step(tensor(x), tensor(y))
    assert len(caught) == 1
    assert not optimizer.factors("layers.0")["G"].any()
    for one, other in zip(net.trainable_params(), plain.trainable_params()):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=0, atol=1e-6)
