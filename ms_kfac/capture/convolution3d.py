"""Three-dimensional convolutions: ``nn.Conv3d``, ``mint.nn.Conv3d`` and their subclasses."""

from __future__ import annotations

from typing import Any

from mindspore import mint, nn

from ms_kfac.capture.convolution import (
    ConvolutionOperators,
    convolution_layer,
    geometry_of,
    padding_objection,
)
from ms_kfac.capture.layer import Layer, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer


@register_layer(nn.Conv3d, mint.nn.Conv3d)
def describe_convolution3d(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Conv3d`` or ``mint.nn.Conv3d``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Conv3d`` or ``mint.nn.Conv3d``.

    Returns:
        The layer, or the reason why it can't be preconditioned: non-zero padding, or groups in a subclass of
        ``nn.Conv3d`` that overrides ``construct``.
    """
    base: Any = nn.Conv3d if isinstance(cell, nn.Conv3d) else mint.nn.Conv3d
    overridden = overrides_construct(cell, base)
    if base is nn.Conv3d and overridden and cell.group > 1:
        return "it overrides the construct of Conv3d, whose groups are separate convolutions"
    operators = ConvolutionOperators(bias=cell.bias is not None, geometry=geometry_of(cell))
    tapped = "conv3d" if overridden else ""
    return padding_objection(cell) or convolution_layer(name, cell, operators, tapped)
