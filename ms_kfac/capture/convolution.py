"""Two-dimensional convolutions: ``nn.Conv2d``, ``mint.nn.Conv2d`` and their subclasses.

The operators, and the description of a cell's geometry, serve convolutions of rows and volumes, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.channels_last import ChannelsLastPatches, FromChannelsLast
from ms_kfac.ops.statistics.convolution_geometry import ConvolutionGeometry
from ms_kfac.ops.statistics.patches import ChannelLocations, ConvolutionPatches
from ms_kfac.ops.statistics.projections import FactorProjections
from ms_kfac.ops.statistics.second_moment import ColumnSecondMoment
from ms_kfac.ops.statistics.volume_patches import patches_of


@dataclass(frozen=True)
class ConvolutionOperators(LayerOperators):
    """Operators of a convolution of images or volumes, for one geometry. They give columns.

    Attributes:
        geometry: kernel, stride, padding, dilation and groups.
    """

    geometry: ConvolutionGeometry

    channels_first = True

    @property
    def groups(self) -> int:
        return self.geometry.groups

    @property
    def taps(self) -> int:
        """Number of weights behind the first two axes of the weight."""
        return math.prod(self.geometry.kernel_size)

    def activations(self, reduce: bool) -> nn.Cell:
        return patches_of(self.geometry, bias=self.bias, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelLocations(groups=self.geometry.groups, reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return ColumnSecondMoment()

    def projections(self) -> nn.Cell:
        return FactorProjections(
            self.activations(False), self.gradients(False), bias=self.bias, columns=True, taps=self.taps
        )

    def native_geometry(self) -> dict[str, Any] | None:
        geometry = self.geometry
        if len(geometry.kernel_size) != 2:
            # Native kernels require four axes.
            return None
        return {
            "convolution": True,
            "bias": self.bias,
            "kernel_size": list(geometry.kernel_size),
            "stride": list(geometry.stride),
            "dilation": list(geometry.dilation),
            "same_padding": geometry.pad_mode == "same",
            "padding": list(geometry.padding) if geometry.pad_mode == "pad" else [0, 0, 0, 0],
            "groups": geometry.groups,
        }


@dataclass(frozen=True)
class ChannelsLastOperators(ConvolutionOperators):
    """Operators of a convolution in the layout NHWC. They give columns.

    Attributes:
        channels: number of input channels of a group.
    """

    channels: int

    @property
    def channels_last(self) -> bool:
        return True

    @property
    def taps(self) -> int:
        # The weight's second axis is the kernel's height.
        return self.geometry.kernel_size[1] * self.channels

    def activations(self, reduce: bool) -> nn.Cell:
        patches = ConvolutionPatches(self.geometry, bias=False, reduce=reduce)
        return ChannelsLastPatches(patches, taps=math.prod(self.geometry.kernel_size), bias=self.bias)

    def gradients(self, reduce: bool) -> nn.Cell:
        return FromChannelsLast(super().gradients(reduce))

    def native_geometry(self) -> dict[str, Any] | None:
        # Native kernels require channels in the second axis.
        return None


def geometry_of(cell: Any) -> ConvolutionGeometry:
    """Read the geometry of a convolution or a transposed convolution.

    Args:
        cell: a cell of ``nn`` or ``mint.nn``.

    Returns:
        Its geometry, with as many axes as its kernel.
    """
    axes = cell.weight.ndim - 2
    if hasattr(cell, "pad_mode"):
        # ``nn`` pads each side, ``mint.nn`` both sides of an axis.
        pad_mode, padding, groups = cell.pad_mode, _spread(cell.padding, 2 * axes), cell.group
    elif isinstance(cell.padding, str):
        pad_mode, padding, groups = cell.padding, (0,) * (2 * axes), cell.groups
    else:
        sides = _spread(cell.padding, axes)
        pad_mode, padding, groups = "pad", tuple(side for side in sides for _ in range(2)), cell.groups
    return ConvolutionGeometry(
        kernel_size=_spread(cell.kernel_size, axes),
        stride=_spread(cell.stride, axes),
        dilation=_spread(cell.dilation, axes),
        pad_mode=pad_mode,
        padding=padding,
        groups=groups,
    )


def padding_objection(cell: Any) -> str:
    """Why a ``mint.nn`` convolution can't be preconditioned: its padding isn't zeros.

    Args:
        cell: a convolution of ``nn`` or ``mint.nn``.

    Returns:
        The reason, or an empty string.
    """
    mode = getattr(cell, "padding_mode", "zeros")
    return "" if mode == "zeros" else f"padding_mode {mode!r} (only zeros are supported)"


def convolution_layer(name: str, cell: Any, operators: LayerOperators, tapped_primitive: str) -> Layer:
    """Describe a convolution.

    Args:
        name: the cell's name in the network.
        cell: the cell.
        operators: its operators.
        tapped_primitive: the attribute that computes the convolution, if the tap is there; else "".

    Returns:
        The layer.
    """
    return Layer(
        name=name,
        kind="convolution",
        cell=cell,
        weight=cell.weight,
        bias=cell.bias,
        operators=operators,
        groups=operators.groups,
        tapped_primitive=tapped_primitive,
    )


def _spread(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(value)


@register_layer(nn.Conv2d, mint.nn.Conv2d)
def describe_convolution(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Conv2d`` or ``mint.nn.Conv2d``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Conv2d`` or ``mint.nn.Conv2d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: non-zero padding.
    """
    base: Any = nn.Conv2d if isinstance(cell, nn.Conv2d) else mint.nn.Conv2d
    bias, geometry = cell.bias is not None, geometry_of(cell)
    operators = ConvolutionOperators(bias=bias, geometry=geometry)
    if getattr(cell, "data_format", "NCHW") == "NHWC":
        operators = ChannelsLastOperators(bias=bias, geometry=geometry, channels=int(cell.weight.shape[3]))
    tapped = "conv2d" if overrides_construct(cell, base) else ""
    return padding_objection(cell) or convolution_layer(name, cell, operators, tapped)
