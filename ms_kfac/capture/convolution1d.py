"""One-dimensional convolutions: ``nn.Conv1d``, ``mint.nn.Conv1d`` and their subclasses.

A convolution of rows (N, C, L) is a convolution of images of height 1 with a kernel (1, k).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mindspore import Tensor, mint, nn, ops

from ms_kfac.capture.convolution import (
    ConvolutionOperators,
    convolution_layer,
    geometry_of,
    padding_objection,
)
from ms_kfac.capture.layer import Layer, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer


class _AsImages(nn.Cell):
    def __init__(self, operator: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.operator = operator
        self.expand_dims = ops.ExpandDims()

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(self.expand_dims(x, 2))


@dataclass(frozen=True)
class RowConvolutionOperators(ConvolutionOperators):
    """Operators of a convolution whose input and output have three axes. They give columns."""

    def activations(self, reduce: bool) -> nn.Cell:
        return _AsImages(super().activations(reduce))

    def gradients(self, reduce: bool) -> nn.Cell:
        return _AsImages(super().gradients(reduce))

    def native_geometry(self) -> dict[str, Any] | None:
        # Native kernels require four axes.
        return None


@register_layer(nn.Conv1d)
def describe_conv1d(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Conv1d``.

    The tap is at its ``ops.Conv2D``, whose inputs are images of height 1, as the native kernels require.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Conv1d``.

    Returns:
        The layer. Every ``nn.Conv1d`` can be preconditioned.
    """
    operators = ConvolutionOperators(bias=cell.bias is not None, geometry=geometry_of(cell))
    return convolution_layer(name, cell, operators, "conv2d")


@register_layer(mint.nn.Conv1d)
def describe_mint_conv1d(name: str, cell: Any) -> Layer | str:
    """Describe a ``mint.nn.Conv1d``.

    Args:
        name: the cell's name in the network.
        cell: a ``mint.nn.Conv1d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: non-zero padding.
    """
    row = geometry_of(cell)
    geometry = replace(
        row,
        kernel_size=(1, *row.kernel_size),
        stride=(1, *row.stride),
        dilation=(1, *row.dilation),
        padding=(0, 0, *row.padding),
    )
    operators = RowConvolutionOperators(bias=cell.bias is not None, geometry=geometry)
    tapped = "conv1d" if overrides_construct(cell, mint.nn.Conv1d) else ""
    return padding_objection(cell) or convolution_layer(name, cell, operators, tapped)
