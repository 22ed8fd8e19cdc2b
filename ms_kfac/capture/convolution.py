"""Two-dimensional convolutions: ``nn.Conv2d``, ``mint.nn.Conv2d`` and their subclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.channels_last import ChannelsLastPatches, FromChannelsLast
from ms_kfac.ops.statistics.patches import ChannelLocations, ConvolutionGeometry, ConvolutionPatches
from ms_kfac.ops.statistics.projections import FactorProjections
from ms_kfac.ops.statistics.second_moment import ColumnSecondMoment


@dataclass(frozen=True)
class ConvolutionOperators(LayerOperators):
    """Operators of a convolution, for one geometry. They give columns.

    Attributes:
        geometry: kernel, stride, padding, dilation and groups.
    """

    geometry: ConvolutionGeometry

    channels_first = True

    @property
    def groups(self) -> int:
        return self.geometry.groups

    def activations(self, reduce: bool) -> nn.Cell:
        return ConvolutionPatches(self.geometry, bias=self.bias, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelLocations(groups=self.geometry.groups, reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return ColumnSecondMoment()

    def projections(self) -> nn.Cell:
        height, width = self.geometry.kernel_size
        return FactorProjections(
            self.activations(False),
            self.gradients(False),
            bias=self.bias,
            columns=True,
            taps=height * width,
        )

    def native_geometry(self) -> dict[str, Any] | None:
        geometry = self.geometry
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

    def activations(self, reduce: bool) -> nn.Cell:
        patches = ConvolutionPatches(self.geometry, bias=False, reduce=reduce)
        height, width = self.geometry.kernel_size
        return ChannelsLastPatches(patches, taps=height * width, bias=self.bias)

    def gradients(self, reduce: bool) -> nn.Cell:
        return FromChannelsLast(super().gradients(reduce))

    def projections(self) -> nn.Cell:
        # The weight's second axis is the kernel's height.
        taps = self.geometry.kernel_size[1] * self.channels
        return FactorProjections(
            self.activations(False), self.gradients(False), bias=self.bias, columns=True, taps=taps
        )

    def native_geometry(self) -> dict[str, Any] | None:
        # Native kernels require channels in the second axis.
        return None


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
    if base is nn.Conv2d:
        padding = (cell.padding,) * 4 if isinstance(cell.padding, int) else tuple(cell.padding)
        pad_mode, groups = cell.pad_mode, cell.group
    else:
        if cell.padding_mode != "zeros":
            return f"padding_mode {cell.padding_mode!r} (only zeros are supported)"
        groups = cell.groups
        if isinstance(cell.padding, str):
            pad_mode, padding = cell.padding, (0, 0, 0, 0)
        else:
            height, width = _pair(cell.padding)
            pad_mode, padding = "pad", (height, height, width, width)
    geometry = ConvolutionGeometry(
        kernel_size=_pair(cell.kernel_size),
        stride=_pair(cell.stride),
        dilation=_pair(cell.dilation),
        pad_mode=pad_mode,
        padding=padding,
        groups=groups,
    )
    bias = cell.bias is not None
    operators = ConvolutionOperators(bias=bias, geometry=geometry)
    if getattr(cell, "data_format", "NCHW") == "NHWC":
        operators = ChannelsLastOperators(bias=bias, geometry=geometry, channels=int(cell.weight.shape[3]))
    return Layer(
        name=name,
        kind="convolution",
        cell=cell,
        weight=cell.weight,
        bias=cell.bias,
        groups=groups,
        operators=operators,
        tapped_primitive="conv2d" if overrides_construct(cell, base) else "",
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))
