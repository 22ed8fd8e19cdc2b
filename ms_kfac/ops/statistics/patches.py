r"""Patches and output gradients of a convolution as columns, in the expand and the reduce setting.

A convolution is a dense layer that shares its weights over T output locations. The input of location t is the
patch :math:`p_{n,t} \in \mathbb{R}^{c_{in} k_h k_w / g}` (Grosse & Martens 2016, section 3.1, the "expanded"
activations). Padding, stride and dilation are those of the layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.array_ops import Im2Col

Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvolutionGeometry:
    """Kernel, stride, dilation, padding and groups of a two-dimensional convolution.

    Attributes:
        kernel_size: height and width of the kernel.
        stride: stride in height and width.
        dilation: dilation in height and width.
        pad_mode: "pad" (uses ``padding``), "same" (the output size is the input size divided by the stride,
            rounded up; an odd element of padding goes to the bottom and right, as in MindSpore's Conv2D) or
            "valid".
        padding: elements added at the top, bottom, left and right. Used only with pad_mode "pad".
        groups: number of channel groups.
    """

    kernel_size: Pair
    stride: Pair
    dilation: Pair
    pad_mode: str
    padding: tuple[int, int, int, int]
    groups: int

    def padding_for(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Padding at the top, bottom, left and right of an image of this size."""
        if self.pad_mode == "valid":
            return (0, 0, 0, 0)
        if self.pad_mode == "pad":
            return self.padding
        amounts: list[int] = []
        for size, kernel, stride, dilation in zip(
            (height, width), self.kernel_size, self.stride, self.dilation
        ):
            outputs = -(-size // stride)
            total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            amounts += [total // 2, total - total // 2]
        return (amounts[0], amounts[1], amounts[2], amounts[3])


class ConvolutionPatches(nn.Cell):
    r"""Layer input as columns of patches, with the homogeneous coordinate of the bias.

    Args:
        geometry: the layer's kernel, stride, padding, dilation and groups.
        bias: True to append a one to each patch.
        reduce: True to average the patches over the locations, :math:`\bar p_n = \frac1T \sum_t p_{n,t}`.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, c_{in}, H, W)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, d, T)`, or :math:`(N, g, d, T)` for g > 1 groups, with
        :math:`d = c_{in} k_h k_w / g [+1]`, in the order of the weight's axes. T = 1 in the reduce setting.
    """

    def __init__(self, geometry: ConvolutionGeometry, *, bias: bool, reduce: bool) -> None:
        super().__init__(auto_prefix=False)
        self.bias = bias
        self.reduce = reduce
        self.groups = geometry.groups
        self.geometry = geometry
        self.pointwise = (
            geometry.kernel_size == (1, 1)
            and geometry.stride == (1, 1)
            and (geometry.pad_mode != "pad" or geometry.padding == (0, 0, 0, 0))
        )
        top, bottom, left, right = geometry.padding if geometry.pad_mode == "pad" else (0, 0, 0, 0)
        self.pads_evenly = geometry.pad_mode != "same" and top == bottom and left == right
        self.im2col = Im2Col(
            ksizes=geometry.kernel_size,
            strides=geometry.stride,
            dilations=geometry.dilation,
            pads=(top, left) if self.pads_evenly else 0,
        )
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()
        self.ones = ops.Ones()
        self.concat = ops.Concat(axis=-2)
        self.reduce_mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Tensor) -> Tensor:
        x = self.cast(x, ms.float32)
        shape = self.shape(x)
        samples = shape[0]
        if self.pointwise:
            patches = x
        elif self.pads_evenly:
            patches = self.im2col(x)
        else:
            patches = self.im2col(self.padded(x, shape[2], shape[3]))
        locations = (
            self.shape(patches)[2] * self.shape(patches)[3] if self.pointwise else self.shape(patches)[3]
        )
        if self.groups == 1:
            patches = self.reshape(patches, (samples, -1, locations))
        else:
            patches = self.reshape(patches, (samples, self.groups, -1, locations))
        if self.reduce:
            patches = self.reduce_mean(patches, -1)
        if self.bias:
            ones_shape = (*self.shape(patches)[:-2], 1, self.shape(patches)[-1])
            patches = self.concat((patches, self.ones(ones_shape, ms.float32)))
        return patches

    def padded(self, x: Tensor, height: int, width: int) -> Tensor:
        top, bottom, left, right = self.geometry.padding_for(height, width)
        return ops.pad(x, (left, right, top, bottom))


class ChannelLocations(nn.Cell):
    r"""A convolution's output gradient, or its input if the kernel covers one location, as columns.

    Args:
        groups: number of channel groups g.
        reduce: True to sum over the locations, :math:`\hat g_n = \sum_t g_{n,t}`.
        average: with ``reduce``, the mean over the locations instead of the sum. Default: False.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, c, ...)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, c, T)`, or :math:`(N, g, c / g, T)` for g > 1. T = 1 in the reduce
        setting.
    """

    def __init__(self, *, groups: int, reduce: bool, average: bool = False) -> None:
        super().__init__(auto_prefix=False)
        self.groups = groups
        self.reduce = reduce
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()
        self.over_locations: Any = ops.ReduceMean(True) if average else ops.ReduceSum(True)

    def construct(self, x: Tensor) -> Tensor:
        x = self.cast(x, ms.float32)
        shape = self.shape(x)
        if self.groups == 1:
            columns = self.reshape(x, (shape[0], shape[1], -1))
        else:
            columns = self.reshape(x, (shape[0], self.groups, shape[1] // self.groups, -1))
        if self.reduce:
            columns = self.over_locations(columns, -1)
        return columns
