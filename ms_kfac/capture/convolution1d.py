"""One-dimensional convolutions: ``nn.Conv1d``, ``mint.nn.Conv1d`` and their subclasses.

A convolution of rows (N, C, L) is a convolution of images of height 1 with a kernel (1, k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import Tensor, mint, nn, ops

from ms_kfac.capture.convolution import ConvolutionOperators
from ms_kfac.capture.layer import Layer, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.patches import ConvolutionGeometry


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
    geometry = ConvolutionGeometry(
        kernel_size=cell.kernel_size,
        stride=cell.stride,
        dilation=cell.dilation,
        pad_mode=cell.pad_mode,
        padding=cell.padding,
        groups=cell.group,
    )
    operators = ConvolutionOperators(bias=cell.bias is not None, geometry=geometry)
    return _layer(name, cell, operators, tapped_primitive="conv2d")


@register_layer(mint.nn.Conv1d)
def describe_mint_conv1d(name: str, cell: Any) -> Layer | str:
    """Describe a ``mint.nn.Conv1d``.

    Args:
        name: the cell's name in the network.
        cell: a ``mint.nn.Conv1d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: non-zero padding.
    """
    if cell.padding_mode != "zeros":
        return f"padding_mode {cell.padding_mode!r} (only zeros are supported)"
    named = isinstance(cell.padding, str)
    sides = 0 if named else cell.padding[0]
    geometry = ConvolutionGeometry(
        kernel_size=(1, cell.kernel_size[0]),
        stride=(1, cell.stride[0]),
        dilation=(1, cell.dilation[0]),
        pad_mode=cell.padding if named else "pad",
        padding=(0, 0, sides, sides),
        groups=cell.groups,
    )
    operators = RowConvolutionOperators(bias=cell.bias is not None, geometry=geometry)
    overridden = overrides_construct(cell, mint.nn.Conv1d)
    return _layer(name, cell, operators, tapped_primitive="conv1d" if overridden else "")


def _layer(name: str, cell: Any, operators: ConvolutionOperators, tapped_primitive: str) -> Layer:
    return Layer(
        name=name,
        kind="convolution",
        cell=cell,
        weight=cell.weight,
        bias=cell.bias,
        operators=operators,
        groups=operators.geometry.groups,
        tapped_primitive=tapped_primitive,
    )
