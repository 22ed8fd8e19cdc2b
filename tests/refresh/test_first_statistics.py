"""The first statistics of a layer bring its first inverse, whatever the number of the step."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import checkpoint_of, cross_entropy, gradient_function
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import Perceptron

WIDTHS, CLASSES, SAMPLES = (5, 6, 3), 3, 8
# No step but the first is due on its own.
RARE = fixed_intervals(1, 1000)


def batch(seed: int) -> tuple[ms.Tensor, ms.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, SAMPLES).astype(np.int32)
    return tensor(rng.standard_normal((SAMPLES, WIDTHS[0]))), tensor(labels)


def preconditioned(optimizer: nn.Optimizer, gradients: tuple[ms.Tensor, ...]) -> list[np.ndarray]:
    return [update.asnumpy() for update in optimizer.precondition(gradients)]


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("SPNGD")])
def test_the_first_step_has_an_inverse_whatever_its_number(mode: int, name: str) -> None:
    """As after `global_step` came along from another optimizer, or after a first batch with NaN."""
    method, options = METHODS[name]
    net = Perceptron(WIDTHS)
    optimizer = method(net, 0.0, damping=0.1, **{**options, **RARE})
    gradient = gradient_function(net, optimizer, cross_entropy())
    start = checkpoint_of(optimizer)
    gradients = gradient(*batch(0))[1]
    optimizer(gradients)
    expected = preconditioned(optimizer, gradients)
    assert all(np.abs(u - g.asnumpy()).max() > 1e-3 for u, g in zip(expected, gradients))
    inverses = optimizer.refreshes()["inverses"]

    optimizer.restore(start)
    ops.assign(optimizer.global_step, ms.Tensor([13], ms.int32))
    # The batch is refused, and the step is taken all the same.
    x, y = batch(1)
    lost = gradient(x * float("nan"), y)[1]
    with pytest.warns(UserWarning, match="hold NaN"):
        optimizer(tuple(ops.zeros_like(part) for part in lost))
    assert optimizer.refreshes()["inverses"] == 0
    optimizer(gradient(*batch(0))[1])
    assert optimizer.refreshes()["inverses"] == inverses
    for found, update in zip(preconditioned(optimizer, gradients), expected):
        np.testing.assert_allclose(found, update, rtol=0, atol=1e-5 * np.abs(update).max())
    optimizer(gradient(*batch(2))[1])
    assert optimizer.refreshes()["inverses"] == inverses


def test_a_trace_below_the_threshold_is_the_first_one_all_the_same(mode: int) -> None:
    """THOR compares traces at step 0, where the batch is refused. The next traces are small next to λ."""
    net = Perceptron(WIDTHS)
    optimizer = ms_kfac.THOR(net, 0.0, damping=1e4, **RARE)
    gradient = gradient_function(net, optimizer, cross_entropy())
    x, y = batch(1)
    lost = gradient(x * float("nan"), y)[1]
    with pytest.warns(UserWarning, match="hold NaN"):
        optimizer(tuple(ops.zeros_like(part) for part in lost))
    assert optimizer.refreshes()["inverses"] == 0
    optimizer(gradient(x, y)[1])
    assert optimizer.refreshes()["inverses"] == 2


class Branches(nn.Cell):
    """A layer that the first steps do not use."""

    def __init__(self) -> None:
        super().__init__()
        self.early = Perceptron(WIDTHS)
        self.late = nn.Dense(WIDTHS[0], CLASSES)

    def construct(self, x: ms.Tensor, share: ms.Tensor) -> ms.Tensor:
        return self.early(x) + share * self.late(x)


def test_a_layer_that_comes_into_use_later(mode: int) -> None:
    """Three steps without it, then its first batch: the inverse is that of a first step."""
    net = Branches()
    optimizer = ms_kfac.KFAC(net, 0.0, damping=0.1, skip=["early"], verify="off", **RARE)
    loss = cross_entropy()

    def without(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return loss(net.early(x), y)

    def used(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return loss(net(x, ms.Tensor(1.0, ms.float32)), y)

    early, late = (ms.grad(part, None, optimizer.parameters) for part in (without, used))
    for seed in range(3):
        optimizer(early(*batch(seed)))
    gradients = late(*batch(3))
    optimizer(gradients)
    factors: dict[str, Any] = optimizer.factors("late")
    A, G = (factors[letter].astype(np.float64) for letter in "AG")
    # Factored Tikhonov damping with π, as at a first step.
    pi = np.sqrt(np.trace(A) / len(A) / (np.trace(G) / len(G)))
    root = np.sqrt(0.1)
    gradient = np.c_[gradients[-2].asnumpy(), gradients[-1].asnumpy()].astype(np.float64)
    expected = np.linalg.solve(G + root / pi * np.eye(len(G)), gradient)
    expected = np.linalg.solve(A + root * pi * np.eye(len(A)), expected.T).T
    weight, bias = preconditioned(optimizer, gradients)[-2:]
    np.testing.assert_allclose(np.c_[weight, bias], expected, rtol=0, atol=1e-5 * np.abs(expected).max())
