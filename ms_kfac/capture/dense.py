"""Dense layers: ``nn.Dense``, ``mint.nn.Linear`` and their subclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor, mint, nn, ops

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.dense_locations import DenseActivations, DenseGradients
from ms_kfac.ops.statistics.projections import FactorProjections
from ms_kfac.ops.statistics.second_moment import RowSecondMoment

_matmul = ops.MatMul(transpose_b=True)
_bias_add = ops.BiasAdd()
_PRIMITIVES: dict[Any, str] = {nn.Dense: "matmul", mint.nn.Linear: "dense"}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    r"""Compute a dense layer, as ``nn.Dense`` does.

    Args:
        x: input, the features in the last axis.
        weight: output features first.
        bias: the bias, or None.

    Returns:
        :math:`x W^{\top} + b`.
    """
    y = _matmul(ops.reshape(x, (-1, x.shape[-1])), weight)
    if bias is not None:
        y = _bias_add(y, bias)
    return ops.reshape(y, (*x.shape[:-1], y.shape[-1]))


@dataclass(frozen=True)
class DenseOperators(LayerOperators):
    """Operators of a layer that multiplies the last axis of its input. They give rows."""

    def activations(self, reduce: bool) -> nn.Cell:
        return DenseActivations(bias=self.bias, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return DenseGradients(reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return RowSecondMoment()

    def projections(self) -> nn.Cell:
        return FactorProjections(
            self.activations(False), self.gradients(False), bias=self.bias, columns=False, taps=1
        )

    def native_geometry(self) -> dict[str, Any] | None:
        return {"convolution": False, "bias": self.bias}


@register_layer(*_PRIMITIVES)
def describe_dense(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Dense`` or ``mint.nn.Linear``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Dense`` or ``mint.nn.Linear``.

    Returns:
        The layer. Every dense layer can be preconditioned.
    """
    base = next(cls for cls in _PRIMITIVES if isinstance(cell, cls))
    return Layer(
        name=name,
        kind="dense",
        cell=cell,
        weight=cell.weight,
        bias=cell.bias,
        operators=DenseOperators(bias=cell.bias is not None),
        tapped_primitive=_PRIMITIVES[base] if overrides_construct(cell, base) else "",
    )
