"""`ms.jit` on functions, blocks and layers of the user: each gives the steps of the plain network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

import ms_kfac
from tests.support.bank import randomise
from tests.support.loops import Batch, Step, cross_entropy, functional_step, jit_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import weights_of


class Block(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(4, 5, activation="tanh")
        self.last = nn.Dense(5, 3)

    def construct(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class CompiledBlock(Block):
    @ms.jit
    def construct(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class CompiledDense(nn.Dense):
    @ms.jit
    def construct(self, x: Tensor) -> Tensor:
        return super().construct(x)


def network(layer: type[nn.Dense] = nn.Dense, block: type[Block] = Block) -> nn.SequentialCell:
    net = nn.SequentialCell(layer(3, 4), nn.Tanh(), block())
    randomise(net, np.random.default_rng(0))
    return net


def forward_step(net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell) -> Step:
    """The forward pass alone is compiled."""

    @ms.jit
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return loss(net(x), y)

    gradient = ms.value_and_grad(forward, None, optimizer.parameters)

    def step(x: Tensor, y: Tensor) -> Tensor:
        value, gradients = gradient(x, y)
        optimizer(gradients)
        return value

    return step


def optimizer_step(net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell) -> Step:
    """Only the optimizer's call is compiled: it does not run its Python part."""

    def forward(x: Tensor, y: Tensor) -> Tensor:
        return loss(net(x), y)

    gradient = ms.value_and_grad(forward, None, optimizer.parameters)

    @ms.jit
    def update(gradients: tuple[Tensor, ...]) -> bool:
        return optimizer(gradients)

    def step(x: Tensor, y: Tensor) -> Tensor:
        value, gradients = gradient(x, y)
        update(gradients)
        return value

    return step


@pytest.fixture
def data(rng: np.random.Generator) -> list[Batch]:
    return [(rng.standard_normal((6, 3)), rng.integers(0, 3, 6)) for _ in range(4)]


def train(net: nn.Cell, way: Callable[..., Step], data: list[Batch]) -> dict[str, np.ndarray]:
    # Statistics at every second step: gates close and open between the calls.
    # Unclipped, so that a wrong number of samples gives another step.
    options = {"kl_clip": None, "damping": 0.1, **fixed_intervals(2, 2)}
    optimizer = ms_kfac.KFAC(net, 0.1, reduction="sum", **options)
    run(way(net, optimizer, cross_entropy("sum")), data)
    assert [checked.state for checked in optimizer.verification.checked] == ["verified"] * 3
    assert optimizer.refreshes() == {"statistics": 2, "inverses": 2, "refused": 0}
    return weights_of(net)


def instance(net: nn.SequentialCell) -> nn.SequentialCell:
    """The construct of the instance, compiled before the optimizer is made."""
    net[2].construct = ms.jit(net[2].construct)
    return net


CASES: dict[str, tuple[Callable[[], Any], Callable[..., Step]]] = {
    "layer": (lambda: network(layer=CompiledDense), functional_step),
    "block": (lambda: network(block=CompiledBlock), functional_step),
    "instance": (lambda: instance(network()), functional_step),
    "forward": (network, forward_step),
    "optimizer": (network, optimizer_step),
    "everything": (lambda: network(CompiledDense, CompiledBlock), jit_step),
}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return {}


@pytest.mark.parametrize("case", CASES)
def test_compiled(case: str, data: list[Batch], expected: dict[str, np.ndarray]) -> None:
    """In PyNative mode, where taps are hooks outside of compiled parts, and operators inside."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if not expected:
        expected.update(train(network(), functional_step, data))
    make, way = CASES[case]
    for name, weight in train(make(), way, data).items():
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=1e-6, err_msg=name)


def test_all_parts_in_graph_mode(data: list[Batch], expected: dict[str, np.ndarray]) -> None:
    if not expected:
        ms.set_context(mode=ms.PYNATIVE_MODE)
        expected.update(train(network(), functional_step, data))
    ms.set_context(mode=ms.GRAPH_MODE)
    for name, weight in train(network(CompiledDense, CompiledBlock), functional_step, data).items():
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=1e-5, err_msg=name)
