r"""Patches of a three-dimensional convolution as columns.

The depth axis is unfolded by slices; the images of all slices are unfolded by Im2Col.
"""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.array_ops import Im2Col

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class VolumeGeometry:
    """Kernel, stride, dilation, padding and groups of a three-dimensional convolution.

    Attributes:
        kernel_size: depth, height and width of the kernel.
        stride: stride in depth, height and width.
        dilation: dilation in depth, height and width.
        pad_mode: "pad" (uses ``padding``), "same" or "valid", as for images.
        padding: elements added at the head, tail, top, bottom, left and right. Used only with pad_mode "pad".
        groups: number of channel groups.
    """

    kernel_size: Triple
    stride: Triple
    dilation: Triple
    pad_mode: str
    padding: tuple[int, ...]
    groups: int

    def reach(self, axis: int) -> int:
        """Number of elements of an axis that the kernel spans."""
        return self.dilation[axis] * (self.kernel_size[axis] - 1) + 1

    def padding_for(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Padding before and after each axis of a volume of these sizes."""
        if self.pad_mode == "valid":
            return (0,) * 6
        if self.pad_mode == "pad":
            return self.padding
        amounts: tuple[int, ...] = ()
        for axis in range(3):
            outputs = -(-sizes[axis] // self.stride[axis])
            total = max((outputs - 1) * self.stride[axis] + self.reach(axis) - sizes[axis], 0)
            amounts = (*amounts, total // 2, total - total // 2)
        return amounts


class VolumePatches(nn.Cell):
    r"""Volumes as columns of patches, with the homogeneous coordinate of the bias.

    Args:
        geometry: kernel, stride, padding, dilation and groups.
        bias: True to append a one to each patch.
        reduce: True to average the patches over the locations.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, c, D, H, W)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, d, T)`, or :math:`(N, g, d, T)` for g > 1 groups, with
        :math:`d = c\, k_d k_h k_w / g [+1]`, in the order of the weight's axes. T = 1 in the reduce setting.
    """

    def __init__(self, geometry: VolumeGeometry, *, bias: bool, reduce: bool) -> None:
        super().__init__(auto_prefix=False)
        self.geometry = geometry
        self.depth_reach = geometry.reach(0)
        self.bias = bias
        self.reduce = reduce
        self.im2col = Im2Col(
            ksizes=geometry.kernel_size[1:], strides=geometry.stride[1:], dilations=geometry.dilation[1:]
        )
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.transpose = ops.Transpose()
        self.cast = ops.Cast()
        self.ones = ops.Ones()
        self.stack = ops.Stack(axis=2)
        self.concat = ops.Concat(axis=-2)
        self.reduce_mean = ops.ReduceMean(keep_dims=True)

    def construct(self, x: Tensor) -> Tensor:
        geometry = self.geometry
        x = self.cast(x, ms.float32)
        head, tail, top, bottom, left, right = geometry.padding_for(self.shape(x)[2:])
        if head + tail + top + bottom + left + right > 0:
            x = ops.pad(x, (left, right, top, bottom, head, tail))
        samples, channels, depth, height, width = self.shape(x)
        kernel, stride = geometry.kernel_size[0], geometry.stride[0]
        outputs = (depth - self.depth_reach) // stride + 1
        slices: tuple[Tensor, ...] = ()
        for index in range(kernel):
            begin = index * geometry.dilation[0]
            slices = (*slices, x[:, :, begin : begin + (outputs - 1) * stride + 1 : stride])
        x = self.transpose(self.stack(slices), (0, 3, 1, 2, 4, 5))
        x = self.im2col(self.reshape(x, (samples * outputs, channels * kernel, height, width)))
        x = self.transpose(self.reshape(x, (samples, outputs, -1, self.shape(x)[3])), (0, 2, 1, 3))
        if geometry.groups == 1:
            patches = self.reshape(x, (samples, self.shape(x)[1], -1))
        else:
            patches = self.reshape(
                x, (samples, geometry.groups, self.shape(x)[1] // geometry.groups, outputs * self.shape(x)[3])
            )
        if self.reduce:
            patches = self.reduce_mean(patches, -1)
        if self.bias:
            ones_shape = (*self.shape(patches)[:-2], 1, self.shape(patches)[-1])
            patches = self.concat((patches, self.ones(ones_shape, ms.float32)))
        return patches
