r"""Patches and output gradients of a convolution as columns, in the expand and the reduce setting.

A convolution is a dense layer that shares its weights over T output locations. The input of location t is the
patch :math:`p_{n,t} \in \mathbb{R}^{c_{in} k_h k_w / g}` (Grosse & Martens 2016, section 3.1, the "expanded"
activations). Padding, stride and dilation are those of the layer.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.array_ops import Im2Col

from ms_kfac.ops.statistics.convolution_geometry import ConvolutionGeometry


class PatchColumns(nn.Cell):
    """Base of the operators that give columns of patches, with the homogeneous coordinate of the bias.

    Args:
        bias: True to append a one to each patch.
        reduce: True to average the patches over the locations.
    """

    def __init__(self, *, bias: bool, reduce: bool) -> None:
        super().__init__(auto_prefix=False)
        self.bias = bias
        self.reduce = reduce
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()
        self.ones = ops.Ones()
        self.concat = ops.Concat(axis=-2)
        self.reduce_mean = ops.ReduceMean(keep_dims=True)

    def finished(self, patches: Tensor) -> Tensor:
        if self.reduce:
            patches = self.reduce_mean(patches, -1)
        if self.bias:
            ones_shape = (*self.shape(patches)[:-2], 1, self.shape(patches)[-1])
            patches = self.concat((patches, self.ones(ones_shape, ms.float32)))
        return patches


class ConvolutionPatches(PatchColumns):
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
        super().__init__(bias=bias, reduce=reduce)
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

    def construct(self, x: Tensor) -> Tensor:
        x = self.cast(x, ms.float32)
        shape = self.shape(x)
        samples = shape[0]
        if self.pointwise:
            patches = x
        elif self.pads_evenly:
            patches = self.im2col(x)
        else:
            top, bottom, left, right = self.geometry.padding_for(shape[2:])
            patches = self.im2col(ops.pad(x, (left, right, top, bottom)))
        locations = (
            self.shape(patches)[2] * self.shape(patches)[3] if self.pointwise else self.shape(patches)[3]
        )
        if self.groups == 1:
            patches = self.reshape(patches, (samples, -1, locations))
        else:
            patches = self.reshape(patches, (samples, self.groups, -1, locations))
        return self.finished(patches)


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
