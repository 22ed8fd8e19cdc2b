"""Operators for the layout NHWC, from those for NCHW."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class FromChannelsLast(nn.Cell):
    """Convert (N, H, W, c) to (N, c, H, W), then apply the operator given.

    Args:
        operator: expects channels in the second axis.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, H, W, c)`.

    Outputs:
        That of the operator.

    Platforms: CPU, GPU, Ascend (composed of Transpose).
    """

    def __init__(self, operator: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.operator = operator
        self.transpose = ops.Transpose()

    def construct(self, x: Tensor) -> Tensor:
        return self.operator(self.transpose(x, (0, 3, 1, 2)))


class ChannelsLastPatches(nn.Cell):
    r"""Patches whose features are ordered as a weight :math:`(c_{out}, k_h, k_w, c_{in} / g)`.

    Args:
        patches: gives patches without bias in the order :math:`(c_{in} / g, k_h, k_w)`.
        taps: :math:`k_h k_w`.
        bias: True to append a one to each patch.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, H, W, c_{in})`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, [g,] d, T)`.

    Platforms: CPU, GPU, Ascend (composed of Transpose and Concat).
    """

    def __init__(self, patches: nn.Cell, *, taps: int, bias: bool) -> None:
        super().__init__(auto_prefix=False)
        self.patches = FromChannelsLast(patches)
        self.taps = taps
        self.bias = bias
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.swap_axes = ops.Transpose()
        self.ones = ops.Ones()
        self.concat = ops.Concat(axis=-2)

    def construct(self, x: Tensor) -> Tensor:
        found = self.patches(x)
        shape = self.shape(found)
        leading, locations = shape[:-2], shape[-1]
        found = self.reshape(found, (-1, shape[-2] // self.taps, self.taps, locations))
        found = self.reshape(self.swap_axes(found, (0, 2, 1, 3)), shape)
        if self.bias:
            found = self.concat((found, self.ones((*leading, 1, locations), ms.float32)))
        return found
