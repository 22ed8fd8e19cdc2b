"""Subclasses of the public operators: a native kernel must not replace what a subclass overrides."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import ms_kfac
from ms_kfac.capture import DenseOperators, Layer, ScaleOperators
from ms_kfac.capture.embedding import EmbeddingOperators
from tests.support.loops import train_by


class Doubled(nn.Cell):
    """Twice what an operator gives."""

    def __init__(self, operator: nn.Cell) -> None:
        super().__init__()
        self.operator = operator

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return 2 * self.operator(x)


class DoubledInputs(DenseOperators):
    """A dense layer that doubles its inputs."""

    def activations(self, reduce: bool) -> nn.Cell:
        return Doubled(super().activations(reduce))


class DoubledScale(ScaleOperators):
    """A scale of twice its inputs."""

    def gradients(self, reduce: bool) -> nn.Cell:
        return Doubled(super().gradients(reduce))


class WithKernel(DoubledInputs):
    """It says that a kernel computes the same."""

    def native_geometry(self) -> dict[str, Any] | None:
        return DenseOperators.native_geometry(self)


class Unchanged(DenseOperators):
    """It overrides nothing."""


def test_a_subclass_with_other_operators_has_no_kernel_of_its_base() -> None:
    assert DoubledInputs(bias=True).native_geometry() is None
    assert DoubledScale(bias=False, shape=(3,), epsilon=None).native_geometry() is None


def test_a_subclass_may_name_a_kernel() -> None:
    geometry = DenseOperators(bias=True).native_geometry()
    assert geometry is not None
    assert WithKernel(bias=True).native_geometry() == geometry
    assert Unchanged(bias=True).native_geometry() == geometry


def test_tables_have_a_kernel_unless_they_have_a_padding_id() -> None:
    geometry = EmbeddingOperators(bias=False, vocabulary=5).native_geometry()
    assert geometry == {"convolution": False, "bias": False, "vocabulary": 5}
    assert EmbeddingOperators(bias=False, vocabulary=5, padding=0).native_geometry() is None


class DoublingDense(nn.Dense):
    """A dense layer that doubles its inputs."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return super().construct(2 * x)


@ms_kfac.register_layer(DoublingDense)
def describe(name: str, cell: Any) -> Layer:
    return Layer(
        name=name,
        kind="dense",
        cell=cell,
        weight=cell.weight,
        bias=None,
        operators=DoubledInputs(bias=False),
    )


def test_statistics_are_those_of_the_subclass() -> None:
    net = nn.SequentialCell(DoublingDense(3, 2, has_bias=False))
    optimizer = ms_kfac.KFAC(net, 0.01)
    x = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    train_by("cell", net, optimizer, [(x, np.zeros(6, np.int32))])
    np.testing.assert_allclose(optimizer.factors("0")["A"], 4 * x.T @ x / 6, rtol=1e-5)
