"""Layers of a user's own classes, registered from outside."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn, ops

import ms_kfac
from ms_kfac.capture import DenseOperators, Layer
from ms_kfac.capture.layer_kinds import describe_layer
from tests.oracle.factors import dense_factors
from tests.support.bank import Bank, backward, linear_loss, randomise, tensor
from tests.support.loops import train_by


class Project(nn.Cell):
    """`nn.Dense` under other names."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.matrix = Parameter(ms.Tensor(np.zeros((outputs, inputs)), ms.float32), name="matrix")
        self.shift = Parameter(ms.Tensor(np.zeros(outputs), ms.float32), name="shift")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.matmul(x, self.matrix.T) + self.shift


class ProjectTwice(Project):
    """A subclass that its base's function describes."""


class Refused(Project):
    """A subclass with a function of its own."""


@ms_kfac.register_layer(Project)
def describe_project(name: str, cell: Any) -> Layer:
    return Layer(
        name=name,
        kind="projection",
        cell=cell,
        weight=cell.matrix,
        bias=cell.shift,
        operators=DenseOperators(bias=True),
    )


@ms_kfac.register_layer(Refused)
def describe_refused(name: str, cell: Any) -> str:
    return "refused by its own function"


@pytest.mark.parametrize("cls", [Project, ProjectTwice])
def test_factors_of_a_registered_class(mode: int, cls: Any, rng: np.random.Generator) -> None:
    net = Bank([cls(4, 3)])
    randomise(net, rng)
    x, g = (rng.standard_normal((8, size)).astype(np.float32) for size in (4, 3))
    optimizer = ms_kfac.KFAC(net, 0.1)
    optimizer(backward(linear_loss(net, [g]), net.trainable_params(), x))
    found = optimizer.factors("layers.0")
    A, G = dense_factors(x, g, True)
    # Sums of eight terms of order 1 in float32.
    np.testing.assert_allclose(found["A"], A, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-6)
    assert any("projection" in line and "layers.0" in line for line in optimizer.summary().splitlines())


@pytest.mark.parametrize("method", [ms_kfac.KFAC, ms_kfac.THOR])
def test_a_registered_class_trains_like_dense(mode: int, method: Any, rng: np.random.Generator) -> None:
    data = [
        (rng.standard_normal((8, 4)).astype(np.float32), rng.integers(0, 5, 8).astype(np.int32))
        for _ in range(3)
    ]
    trained = []
    for cls in (nn.Dense, Project):
        net = nn.SequentialCell(cls(4, 6), nn.Tanh(), cls(6, 5))
        randomise(net, np.random.default_rng(0))
        start = [p.asnumpy().copy() for p in net.trainable_params()]
        optimizer = method(net, 0.1, damping=0.1, factor_interval=1, inverse_interval=1)
        train_by("functional", net, optimizer, data)
        trained.append([p.asnumpy() for p in net.trainable_params()])
    for found, expected, before in zip(trained[1], trained[0], start):
        assert np.abs(expected - before).max() > 1e-3
        # Three steps of float32 products and solves.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_closest_class_describes_a_layer() -> None:
    net = nn.SequentialCell(Refused(4, 3), Project(3, 2))
    with pytest.warns(UserWarning, match="65.2 % of the weights have no curvature"):
        optimizer = ms_kfac.KFAC(net, 0.1)
    assert len(optimizer.blocks) == 1
    assert any("refused by its own function" in line for line in optimizer.summary().splitlines())


def test_a_class_registered_again_gets_the_new_function() -> None:
    class Changing(Project):
        pass

    ms_kfac.register_layer(Changing)(lambda name, cell: "first")
    ms_kfac.register_layer(Changing)(lambda name, cell: "second")
    assert describe_layer("a", Changing(2, 2)) == "second"
    assert isinstance(describe_layer("a", Project(2, 2)), Layer)


def test_unregistered_class_stays_first_order() -> None:
    class Unknown(nn.Cell):
        pass

    assert describe_layer("a", Unknown()) == "no curvature block for Unknown"


@pytest.mark.parametrize("classes", [(), (3,), (int,), (nn.Dense(2, 2),)])
def test_only_classes_of_cells_are_registered(classes: Any) -> None:
    with pytest.raises(TypeError, match="register_layer: classes must be subclasses"):
        ms_kfac.register_layer(*classes)


def test_a_registered_layer_is_usable_alone(mode: int) -> None:
    net = nn.SequentialCell(Project(4, 3))
    randomise(net, np.random.default_rng(0))
    x = tensor(np.ones((2, 4), np.float32))
    plain = net[0](x).asnumpy()
    ms_kfac.KFAC(net, 0.1)
    np.testing.assert_array_equal(net[0](x).asnumpy(), plain)
