"""Layers and blocks that are recomputed in the backward pass give the steps of layers that are kept."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import randomise, tensor
from tests.support.loops import cross_entropy, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import weights_of


class Block(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(4, 5, activation="tanh")
        self.last = nn.Dense(5, 3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.last(self.first(x))


def network() -> nn.SequentialCell:
    net = nn.SequentialCell(nn.Dense(3, 4, activation="tanh"), Block())
    randomise(net, np.random.default_rng(0))
    return net


def data() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(rng.standard_normal((6, 3)), rng.integers(0, 3, 6)) for _ in range(3)]


def train(net: nn.Cell, optimizer: nn.Optimizer) -> dict[str, np.ndarray]:
    run(functional_step(net, optimizer, cross_entropy("sum")), data())
    return weights_of(net)


def kfac(net: nn.Cell) -> nn.Optimizer:
    # Unclipped: the clip gives a sum of another number of samples the same step.
    return ms_kfac.KFAC(net, 0.1, damping=0.1, kl_clip=None, reduction="sum", **fixed_intervals(1, 1))


NON_REENTRANT = {"use_reentrant": False}
CASES = [
    (ms.GRAPH_MODE, "counting_layer", True, {}),
    (ms.GRAPH_MODE, "layer", False, {}),
    (ms.GRAPH_MODE, "block", True, {}),
    (ms.GRAPH_MODE, "block", False, {}),
    (ms.PYNATIVE_MODE, "counting_layer", True, {}),
    (ms.PYNATIVE_MODE, "layer", True, NON_REENTRANT),
    (ms.PYNATIVE_MODE, "layer", False, NON_REENTRANT),
    (ms.PYNATIVE_MODE, "block", True, {}),
    (ms.PYNATIVE_MODE, "block", False, {}),
]


@pytest.fixture(scope="module")
def expected() -> dict[int, dict[str, np.ndarray]]:
    """The weights that training without recomputation gives, by mode."""
    found = {}
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        net = network()
        found[mode] = train(net, kfac(net))
    return found


@pytest.mark.parametrize(("mode", "part", "before", "options"), CASES, indirect=["mode"])
def test_recomputed(
    expected: dict[int, dict[str, np.ndarray]],
    mode: int,
    part: str,
    before: bool,
    options: dict[str, Any],
) -> None:
    """In PyNative mode, MindSpore keeps the construct of the time of the call: before, it has no tap."""
    net = network()
    recomputed = {"counting_layer": net[0], "layer": net[1].first, "block": net[1]}[part]
    if before:
        recomputed.recompute(**options)
    optimizer = kfac(net)
    if not before:
        recomputed.recompute(**options)
    found = train(net, optimizer)
    for name, weight in expected[mode].items():
        np.testing.assert_allclose(found[name], weight, rtol=0, atol=1e-6, err_msg=name)
    assert [checked.state for checked in optimizer.verification.checked] == ["verified"] * 3


@pytest.mark.parametrize("options", [{}, NON_REENTRANT], ids=["reentrant", "non_reentrant"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_recomputed_layer_without_its_tap(before: bool, options: dict[str, Any]) -> None:
    """`detached` takes the tap out of the recomputation too, and puts it back."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = network()
    layer = net[1].first
    if before:
        layer.recompute(**options)
    optimizer = kfac(net)
    if not before:
        layer.recompute(**options)
    x, y = (tensor(array) for array in data()[0])

    def forward(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return cross_entropy()(net(x), y)

    gradient = ms.grad(forward, None, optimizer.parameters)
    with optimizer.detached():
        gradient(x, y)
    assert [block.record.asnumpy()[0] for block in optimizer.blocks] == [0, 0, 0]
    gradient(x, y)
    assert [block.record.asnumpy()[0] for block in optimizer.blocks] == [1, 1, 1]
