"""Two losses with a backward pass each, whose gradients are added before the step."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.factors import shared_factors
from tests.support.bank import randomise, tensor
from tests.support.methods import fixed_intervals

N, WIDTHS = 6, (4, 5)


class TwoHeads(nn.Cell):
    """Linear, so that the gradients of the outputs are known."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Dense(*WIDTHS)
        self.heads = nn.CellList([nn.Dense(WIDTHS[1], 2), nn.Dense(WIDTHS[1], 3)])
        randomise(self, np.random.default_rng(7))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_shared_layers_have_the_sum_of_both_curvatures(
    mode: int, reduction: str, compiled: bool, rng: np.random.Generator
) -> None:
    """The Fisher blocks of the sum are A ⊗ (G₁ + G₂); the samples are those of one pass."""
    net = TwoHeads()
    options = {**fixed_intervals(1, 1), "factor_decay": 0.0, "kl_clip": None, "momentum": 0.0}
    optimizer = ms_kfac.KFAC(net, 0.1, reduction=reduction, **options)
    scale = 1 / N if reduction == "mean" else 1.0
    x, c1, c2 = (rng.standard_normal((N, width)).astype(np.float32) for width in (WIDTHS[0], 2, 3))

    def first(x: ms.Tensor, c: ms.Tensor) -> ms.Tensor:
        return (net.heads[0](net.trunk(x)) * c).sum() * scale

    def second(x: ms.Tensor, c: ms.Tensor) -> ms.Tensor:
        return (net.heads[1](net.trunk(x)) * c).sum() * scale

    of_first, of_second = (ms.grad(loss, None, optimizer.parameters) for loss in (first, second))

    def step(x: ms.Tensor, c1: ms.Tensor, c2: ms.Tensor) -> tuple[ms.Tensor, ...]:
        gradients = ()
        for one, other in zip(of_first(x, c1), of_second(x, c2)):
            gradients = (*gradients, one + other)
        optimizer(gradients)
        return gradients

    if compiled:
        step = ms.jit(step)
    given = tensor(x), tensor(c1), tensor(c2)
    # The first commit finds out how often the layers are called.
    step(*given)
    weights = [head.weight.asnumpy().astype(np.float64) for head in net.heads]
    before = net.trunk.weight.asnumpy().astype(np.float64)
    gradients = step(*given)
    g = np.stack([c1 @ weights[0], c2 @ weights[1]], 1)
    A, G = shared_factors(np.stack([x, x], 1), g, bias=True)
    found = optimizer.factors("trunk")
    # Float32 rounding of a few products.
    np.testing.assert_allclose(found["A"], A, rtol=0, atol=1e-5 * np.abs(A).max())
    np.testing.assert_allclose(found["G"], G, rtol=0, atol=1e-5 * np.abs(G).max())
    assert [checked.state for checked in optimizer.verification.checked] == ["verified"] * 3
    of_mean = [gradient / (scale * N) for gradient in gradients]
    moved = net.trunk.weight.asnumpy() - before
    # Float32 rounding of inverses and weights.
    expected = -0.1 * optimizer.precondition(tuple(of_mean))[0].asnumpy()
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
