"""Three-dimensional convolutions: ``nn.Conv3d``, ``mint.nn.Conv3d`` and their subclasses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.patches import ChannelLocations
from ms_kfac.ops.statistics.projections import FactorProjections
from ms_kfac.ops.statistics.second_moment import ColumnSecondMoment
from ms_kfac.ops.statistics.volume_patches import VolumeGeometry, VolumePatches


@dataclass(frozen=True)
class VolumeOperators(LayerOperators):
    """Operators of a convolution of volumes. They give columns.

    Attributes:
        geometry: kernel, stride, padding, dilation and groups.
    """

    geometry: VolumeGeometry

    channels_first = True

    @property
    def groups(self) -> int:
        return self.geometry.groups

    def activations(self, reduce: bool) -> nn.Cell:
        return VolumePatches(self.geometry, bias=self.bias, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ChannelLocations(groups=self.geometry.groups, reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return ColumnSecondMoment()

    def projections(self) -> nn.Cell:
        return FactorProjections(
            self.activations(False),
            self.gradients(False),
            bias=self.bias,
            columns=True,
            taps=math.prod(self.geometry.kernel_size),
        )


@register_layer(nn.Conv3d)
def describe_conv3d(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Conv3d``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Conv3d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: groups in a subclass that overrides
        ``construct``.
    """
    overridden = overrides_construct(cell, nn.Conv3d)
    if overridden and cell.group > 1:
        return "it overrides the construct of Conv3d, whose groups are separate convolutions"
    padding = (cell.padding,) * 6 if isinstance(cell.padding, int) else tuple(cell.padding)
    geometry = VolumeGeometry(
        kernel_size=cell.kernel_size,
        stride=cell.stride,
        dilation=cell.dilation,
        pad_mode=cell.pad_mode,
        padding=padding,
        groups=cell.group,
    )
    return _layer(name, cell, geometry, tapped_primitive="conv3d" if overridden else "")


@register_layer(mint.nn.Conv3d)
def describe_mint_conv3d(name: str, cell: Any) -> Layer | str:
    """Describe a ``mint.nn.Conv3d``.

    Args:
        name: the cell's name in the network.
        cell: a ``mint.nn.Conv3d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: non-zero padding.
    """
    if cell.padding_mode != "zeros":
        return f"padding_mode {cell.padding_mode!r} (only zeros are supported)"
    named = isinstance(cell.padding, str)
    sides = (0, 0, 0) if named else tuple(cell.padding)
    geometry = VolumeGeometry(
        kernel_size=tuple(cell.kernel_size),
        stride=tuple(cell.stride),
        dilation=tuple(cell.dilation),
        pad_mode=cell.padding if named else "pad",
        padding=tuple(side for size in sides for side in (size, size)),
        groups=cell.groups,
    )
    overridden = overrides_construct(cell, mint.nn.Conv3d)
    return _layer(name, cell, geometry, tapped_primitive="conv3d" if overridden else "")


def _layer(name: str, cell: Any, geometry: VolumeGeometry, tapped_primitive: str) -> Layer:
    return Layer(
        name=name,
        kind="convolution",
        cell=cell,
        weight=cell.weight,
        bias=cell.bias,
        operators=VolumeOperators(bias=cell.bias is not None, geometry=geometry),
        groups=geometry.groups,
        tapped_primitive=tapped_primitive,
    )
