"""Cells inside cells inside cells: a compiled step nests as deep as the network does."""

from __future__ import annotations

from contextlib import nullcontext

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.forms import fallback
from tests.support.loops import cross_entropy, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import WIDTHS, Perceptron, vectors

INPUTS, CLASSES = WIDTHS[0], WIDTHS[-1]
FLAT = (INPUTS, INPUTS, INPUTS, INPUTS, CLASSES)


class Nested(nn.Cell):
    """So many cells around the last layer; every tenth has a layer."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Nested(depth - 1) if depth > 1 else nn.Dense(INPUTS, CLASSES)
        self.own = nn.Dense(INPUTS, INPUTS, activation="tanh") if depth % 10 == 0 else nn.Identity()

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.inner(self.own(x))


def trained(net: nn.Cell) -> nn.Optimizer:
    optimizer = ms_kfac.KFAC(net, 0.05, damping=0.1, **fixed_intervals(1, 2))
    run(functional_step(net, optimizer, cross_entropy()), vectors(2))
    return optimizer


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE], indirect=True)
@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
def test_thirty_nested_cells_train_as_a_flat_network(native: bool, mode: int) -> None:
    flat, net = Perceptron(FLAT), Nested(30)
    dense = [cell for _, cell in net.cells_and_names() if isinstance(cell, nn.Dense)]
    dense.sort(key=lambda cell: len(cell.weight.name))
    for own, other in zip(dense, flat.layers):
        own.weight.set_data(other.weight + 0)
        own.bias.set_data(other.bias + 0)
    start = [layer.weight.asnumpy().copy() for layer in flat.layers]
    trained(flat)
    with nullcontext() if native else fallback():
        optimizer = trained(net)
    assert [checked.state for checked in optimizer.verification.checked] == ["verified"] * 4
    for own, other, before in zip(dense, flat.layers, start):
        weight = other.weight.asnumpy()
        moved = np.abs(weight - before).max()
        # Float32 rounding, behind damped inverses of condition 1e2 to 1e3.
        np.testing.assert_allclose(own.weight.asnumpy(), weight, rtol=0, atol=1e-3 * moved)
