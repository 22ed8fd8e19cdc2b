r"""Patches of a three-dimensional convolution as columns.

The depth axis is unfolded by slices; the images of all slices are unfolded by Im2Col.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.array_ops import Im2Col

from ms_kfac.ops.statistics.convolution_geometry import ConvolutionGeometry
from ms_kfac.ops.statistics.patches import ConvolutionPatches, PatchColumns


class VolumePatches(PatchColumns):
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

    def __init__(self, geometry: ConvolutionGeometry, *, bias: bool, reduce: bool) -> None:
        super().__init__(bias=bias, reduce=reduce)
        self.geometry = geometry
        self.depth_reach = geometry.reach(0)
        self.im2col = Im2Col(
            ksizes=geometry.kernel_size[1:], strides=geometry.stride[1:], dilations=geometry.dilation[1:]
        )
        self.transpose = ops.Transpose()
        self.stack = ops.Stack(axis=2)

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
        return self.finished(patches)


def patches_of(geometry: ConvolutionGeometry, *, bias: bool, reduce: bool) -> nn.Cell:
    """Create the operator that gives the patches of images or volumes.

    Args:
        geometry: kernel, stride, padding, dilation and groups; its kernel has as many axes as they have.
        bias: True to append a one to each patch.
        reduce: True to average the patches over the locations.

    Returns:
        The operator.
    """
    kind = ConvolutionPatches if len(geometry.kernel_size) == 2 else VolumePatches
    return kind(geometry, bias=bias, reduce=reduce)
