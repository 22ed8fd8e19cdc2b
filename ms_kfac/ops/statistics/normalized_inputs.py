r"""Normalized inputs and output gradients of normalization layers, per sample, position and channel.

A normalization layer is :math:`y = \gamma \hat x + \beta` with :math:`\hat x = (x - \mu) / \sqrt{\sigma^2 +
\epsilon}`. All axes other than samples and channels are positions. A sample has T positions, which share
:math:`\gamma` and :math:`\beta`.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class _NormalizedInputs(nn.Cell):
    """Standardization over some axes, and division by the root mean square."""

    def __init__(self, epsilon: float | None) -> None:
        super().__init__(auto_prefix=False)
        self.epsilon = epsilon
        self.reduce_mean = ops.ReduceMean(keep_dims=True)
        self.square = ops.Square()
        self.rsqrt = ops.Rsqrt()

    def standardized(self, x: Tensor, axes: int | tuple[int, ...]) -> Tensor:
        return self.scaled(x - self.reduce_mean(x, axes), axes)

    def scaled(self, x: Tensor, axes: int | tuple[int, ...]) -> Tensor:
        return x * self.rsqrt(self.reduce_mean(self.square(x), axes) + self.epsilon)


class BatchNormalizedInputs(_NormalizedInputs):
    r""":math:`\hat x` of a batch normalization layer, with the moments of the current batch.

    .. math::
        \hat x_{n,c,t} = \frac{x_{n,c,t} - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}}

    :math:`\mu_c` and :math:`\sigma_c^2` (divided by N T, not N T - 1) are computed over samples and positions
    (Ioffe & Szegedy 2015, "Batch Normalization", algorithm 1).

    Args:
        epsilon: :math:`\epsilon`.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, C, ...)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, C, T)`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__(epsilon)
        self.columns = ChannelColumns()

    def construct(self, x: Tensor) -> Tensor:
        return self.standardized(self.columns(x), (0, 2))


class LayerNormalizedInputs(_NormalizedInputs):
    r""":math:`\hat x` of a layer normalization layer.

    .. math::
        \hat x_{n,t,c} = \frac{x_{n,t,c} - \mu_{n,t}}{\sqrt{\sigma_{n,t}^2 + \epsilon}}

    The moments of each position are computed over its C normalized values (Ba, Kiros & Hinton 2016, "Layer
    Normalization", eq. 4).

    Args:
        epsilon: :math:`\epsilon`.
        channels: C, the product of the sizes of the normalized axes.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, ..., C_1, ..., C_k)` with :math:`\prod_i C_i = C`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, T, C)`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, epsilon: float, channels: int) -> None:
        super().__init__(epsilon)
        self.rows = ChannelRows(channels)

    def construct(self, x: Tensor) -> Tensor:
        return self.standardized(self.rows(x), 2)


class GroupNormalizedInputs(_NormalizedInputs):
    r""":math:`\hat x` of a group or instance normalization layer.

    The moments of each sample are computed over the channels of a group and all positions (Wu & He 2018,
    "Group Normalization", eq. 2). With one channel per group, this is instance normalization.

    Args:
        epsilon: :math:`\epsilon`.
        groups: number of groups.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, C, ...)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, C, T)`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, epsilon: float, groups: int) -> None:
        super().__init__(epsilon)
        self.groups = groups
        self.columns = ChannelColumns()
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()

    def construct(self, x: Tensor) -> Tensor:
        x = self.columns(x)
        shape = self.shape(x)
        x = self.standardized(self.reshape(x, (shape[0], self.groups, -1)), 2)
        return self.reshape(x, shape)


class RootMeanSquareInputs(_NormalizedInputs):
    r"""Inputs of a scale :math:`\gamma`, divided by their root mean square or as they are.

    .. math::
        \hat x_{n,t,c} = x_{n,t,c} / \sqrt{\tfrac1C \sum_c x_{n,t,c}^2 + \epsilon}

    (Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", eq. 4).

    Args:
        epsilon: :math:`\epsilon`; None for inputs as they are.
        channels: C, the product of the sizes of the scaled axes.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, ..., C_1, ..., C_k)` with :math:`\prod_i C_i = C`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, T, C)`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, epsilon: float | None, channels: int) -> None:
        super().__init__(epsilon)
        self.rows = ChannelRows(channels)

    def construct(self, x: Tensor) -> Tensor:
        x = self.rows(x)
        return x if self.epsilon is None else self.scaled(x, 2)


class ChannelColumns(nn.Cell):
    """Flatten the positions of a channels-first layout into one axis.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, C, ...)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N, C, T)`.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()

    def construct(self, x: Tensor) -> Tensor:
        shape = self.shape(x)
        return self.reshape(self.cast(x, ms.float32), (shape[0], shape[1], -1))


class ChannelRows(nn.Cell):
    """Flatten the positions of a channels-last layout into one axis.

    Args:
        channels: C, the product of the sizes of the normalized axes.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, ..., C_1, ..., C_k)`, any float type. A tensor of shape
          :math:`(C,)` is a single sample.

    Outputs:
        Tensor, float32, shape :math:`(N, T, C)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(auto_prefix=False)
        self.channels = channels
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()

    def construct(self, x: Tensor) -> Tensor:
        shape = self.shape(x)
        samples = shape[0] if len(shape) > 1 else 1
        return self.reshape(self.cast(x, ms.float32), (samples, -1, self.channels))
