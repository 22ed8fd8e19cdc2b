r"""Transposed convolutions of rows, images and volumes, of ``nn`` and ``mint.nn``.

Each location t of the input adds :math:`x_t^{\top} W` to a patch of the output. With :math:`p_t` the patch of
the output gradient at t, :math:`dW = \sum_t x_t p_t^{\top}`. So A is the second moment of the input at its
locations, :math:`(c_{in}, c_{in})`, and G is that of patches of the output gradient,
:math:`(c_{out} k_h k_w, c_{out} k_h k_w)`: the roles of the two sides of a convolution are swapped (Grosse &
Martens 2016, section 3, for the convolution). The patches are those of the convolution from the output to the
input.

The bias is added to each element of the output, not to each patch. It stays first-order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from mindspore import Tensor, mint, nn, ops

from ms_kfac.capture.convolution import convolution_layer, geometry_of
from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.convolution_geometry import ConvolutionGeometry
from ms_kfac.ops.statistics.patches import ChannelLocations
from ms_kfac.ops.statistics.projections import FactorProjections
from ms_kfac.ops.statistics.second_moment import ColumnSecondMoment
from ms_kfac.ops.statistics.volume_patches import patches_of


class _PatchSums(nn.Cell):
    """Sum of the patches over the locations."""

    def __init__(self, patches: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.patches = patches
        self.reduce_sum = ops.ReduceSum(True)

    def construct(self, dout: Tensor) -> Tensor:
        return self.reduce_sum(self.patches(dout), -1)


class _SwappedProjections(nn.Cell):
    """Projections whose rows are inputs, and whose columns are patches of the output gradient."""

    def __init__(self, projections: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.projections = projections

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return self.projections(dout, x)


@dataclass(frozen=True)
class TransposedOperators(LayerOperators):
    """Operators of a transposed convolution of images or volumes. They give columns.

    Attributes:
        geometry: kernel, stride, padding, dilation and groups of the convolution from output to input.
    """

    geometry: ConvolutionGeometry

    channels_first = True
    locates_inputs = True

    @property
    def groups(self) -> int:
        return self.geometry.groups

    def activations(self, reduce: bool) -> nn.Cell:
        return ChannelLocations(groups=self.geometry.groups, reduce=reduce, average=True)

    def gradients(self, reduce: bool) -> nn.Cell:
        patches = patches_of(self.geometry, bias=False, reduce=False)
        return _PatchSums(patches) if reduce else patches

    def second_moment(self) -> nn.Cell:
        return ColumnSecondMoment()

    def projections(self) -> nn.Cell:
        taps = math.prod(self.geometry.kernel_size)
        return _SwappedProjections(
            FactorProjections(
                self.gradients(False), self.activations(False), bias=False, columns=True, taps=taps
            )
        )


@register_layer(nn.Conv1dTranspose, nn.Conv2dTranspose)
def describe_transposed(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Conv1dTranspose`` or ``nn.Conv2dTranspose``.

    The tap is at the primitive. It has four axes for rows, too, and ``output_padding`` comes after it.

    Args:
        name: the cell's name in the network.
        cell: the cell.

    Returns:
        The layer. Each can be preconditioned.
    """
    return _layer(name, cell, tapped_primitive="conv2d_transpose")


@register_layer(nn.Conv3dTranspose)
def describe_transposed3d(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Conv3dTranspose``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Conv3dTranspose``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an output padding of a whole stride.
    """
    return _output_padding_objection(cell) or _layer(name, cell, tapped_primitive="conv3d_transpose")


@register_layer(mint.nn.ConvTranspose2d)
def describe_mint_transposed(name: str, cell: Any) -> Layer | str:
    """Describe a ``mint.nn.ConvTranspose2d``.

    Args:
        name: the cell's name in the network.
        cell: a ``mint.nn.ConvTranspose2d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, or an output
        padding of a whole stride.
    """
    if overrides_construct(cell, mint.nn.ConvTranspose2d):
        return "it overrides the construct of ConvTranspose2d"
    return _output_padding_objection(cell) or _layer(name, cell, tapped_primitive="")


def _output_padding_objection(cell: Any) -> str:
    if any(extra >= stride for extra, stride in zip(cell.output_padding, cell.stride)):
        return f"output_padding {cell.output_padding} is not smaller than the stride {cell.stride}"
    return ""


def _layer(name: str, cell: Any, *, tapped_primitive: str) -> Layer:
    operators = TransposedOperators(bias=False, geometry=geometry_of(cell))
    layer = convolution_layer(name, cell, operators, tapped_primitive)
    return replace(layer, bias=None, input_first=True)
