"""Two-dimensional convolutions: ``nn.Conv2d`` and ``mint.nn.Conv2d``, and their subclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer
from ms_kfac.ops.patches import ConvolutionGeometry, ConvolutionGradients, ConvolutionPatches
from ms_kfac.ops.second_moment import ColumnSecondMoment

CLASSES = (nn.Conv2d, mint.nn.Conv2d)


@dataclass(frozen=True)
class ConvolutionLayer(Layer):
    """A convolution with its geometry."""

    geometry: ConvolutionGeometry

    kind = "convolution"
    channels_first = True

    @property
    def groups(self) -> int:
        return self.geometry.groups

    @property
    def input_dimension(self) -> int:
        _, channels, height, width = self.weight.shape
        return int(channels * height * width) + (self.bias is not None)

    @property
    def primitive(self) -> str:
        return "conv2d"

    def activations(self, reduce: bool) -> nn.Cell:
        return ConvolutionPatches(self.geometry, bias=self.bias is not None, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return ConvolutionGradients(groups=self.groups, reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return ColumnSecondMoment()


def describe_convolution(name: str, cell: nn.Cell) -> Union[ConvolutionLayer, str]:
    """The layer, or why it can't be preconditioned.

    Args:
        name: the cell's name in the network.
        cell: an instance of one of ``CLASSES``.

    Returns:
        A ConvolutionLayer, or a reason: the NHWC layout, or padding with anything but zeros.
    """
    base = next(cls for cls in CLASSES if isinstance(cell, cls))
    if base is nn.Conv2d:
        if cell.data_format != "NCHW":
            return f"data format {cell.data_format} (only NCHW is supported)"
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
    overridden = type(cell).construct is not base.construct  # type: ignore[attr-defined]
    return ConvolutionLayer(
        name=name, cell=cell, weight=cell.weight, bias=cell.bias, overridden=overridden, geometry=geometry
    )


def _pair(value: Union[int, tuple[int, ...]]) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    return (int(value[0]), int(value[-1]))
