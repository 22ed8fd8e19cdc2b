r"""Unit-wise block of a normalisation layer: one exact :math:`2 \times 2` Fisher matrix per channel.

.. math::
    F_c = E_n\begin{bmatrix} \nabla\gamma_{n,c}^2 & \nabla\gamma_{n,c} \nabla\beta_{n,c} \\
                             \nabla\gamma_{n,c} \nabla\beta_{n,c} & \nabla\beta_{n,c}^2 \end{bmatrix},
    \qquad (U_{\gamma,c}, U_{\beta,c})^{\top} = (F_c + \lambda I)^{-1} (d\gamma_c, d\beta_c)^{\top}

(Osawa et al. 2020, "Scalable and Practical Natural Gradient for Large-Scale Deep Learning", for batch
normalisation). The block also supports layer, group and instance normalisation, where :math:`\gamma` and
:math:`\beta` have the same role, and scales without :math:`\beta`, where :math:`F_c` is one number. It keeps
correlations within a channel and drops correlations between channels.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock, layer_statistics
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, StatisticsOptions
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseStatistics
from ms_kfac.ops.step.weight_matrix import UnitMatrix


class UnitWiseBlock(CurvatureBlock):
    r"""Unit-wise Fisher block of a normalisation layer or a scale.

    The gradient matrix is :math:`(C, 2)`, with the columns :math:`d\gamma` and :math:`d\beta`, or
    :math:`(C, 1)` without :math:`\beta`. If a layer normalisation has several axes of channels, they are
    flattened.

    :math:`\nabla\gamma_n` is the contribution of sample n to the gradient, times N for a loss that averages.
    In a network with batch normalisation, the loss of a sample depends on all samples. The contribution of
    sample n is the part that flows through the outputs of this layer for sample n. The factor G of the other
    layers uses the same convention.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.

    Note:
        Until a backward pass in training mode has reached the layer, its gradient passes through unchanged.
    """

    kind = "unit-wise"

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        return layer.kind == "normalization"

    def __init__(self, layer: Layer, *, prefix: str, options: StatisticsOptions, period: int = 1) -> None:
        super().__init__(layer, prefix=prefix)
        self.bias = layer.bias is not None
        self.width = 1 + self.bias
        self.weight_matrix = UnitMatrix(layer.weight.shape, bias=self.bias)
        self.channels = int(np.prod(layer.weight.shape))
        self.operator = layer_statistics(UnitWiseStatistics, layer.operators, options)
        self.add_statistic("squares", (2, self.channels), weight=0, gate=EVERYTHING, power=2)
        self.add_statistic("cross", (self.channels,), weight=0, gate=EVERYTHING, power=2)
        self.create_weights(1, period)
        self.staged = (self.squares_batch, self.cross_batch, self.record)
        identities: NDArray[Any] = np.broadcast_to(
            np.eye(self.width), (self.channels, self.width, self.width)
        )
        self.inverse = self.parameter("inverse", identities)
        self.stack = ops.Stack(axis=1)
        self.reduce_sum = ops.ReduceSum()
        self.cast = ops.Cast()
        self.equal = ops.Equal()

    def averages(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three distinct entries of every :math:`F_c`. They are zero before the first statistics."""
        squares, cross = self.estimate(self.squares_sum, 0), self.estimate(self.cross_sum, 0)
        size = (1, self.channels)
        gamma, beta = self.slice(squares, (0, 0), size), self.slice(squares, (1, 0), size)
        return self.reshape(gamma, (self.channels,)), cross, self.reshape(beta, (self.channels,))

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        return (SyncedTensor(self.inverse, symmetric=True),)

    def refresh(self, damping: Tensor) -> bool:
        unseen = self.cast(self.equal(element(self.weights, 0), 0.0), ms.float32)
        damping = damping + unseen * (1.0 - damping)
        a, b, d = self.averages()
        if not self.bias:
            self.assign(self.inverse, self.reshape(1.0 / (a + damping), (-1, 1, 1)))
            return True
        # F_c is a second moment, so a d - b² is negative only by rounding. It is clipped on its own: if the
        # two gradients are proportional, a rounding error there could cancel the terms with damping.
        determinant = damping * (a + d + damping) + self.maximum(a * d - b * b, 0.0)
        adjugate = self.matrices(d + damping, -b, a + damping)
        self.assign(self.inverse, adjugate / self.reshape(determinant, (-1, 1, 1)))
        return True

    def matrices(self, a: Tensor, b: Tensor, d: Tensor) -> Tensor:
        """Symmetric matrices [[a, b], [b, d]], one per channel; [[a]] without beta."""
        if not self.bias:
            return self.reshape(a, (-1, 1, 1))
        return self.reshape(self.stack((a, b, b, d)), (-1, 2, 2))

    def multiply_channels(self, matrices: Tensor, matrix: Tensor) -> Tensor:
        """Multiply every row of a gradient matrix by the matrix of its channel."""
        return self.reduce_sum(matrices * self.reshape(matrix, (-1, 1, self.width)), 2)

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.multiply_channels(self.inverse, matrix)

    def multiply(self, matrix: Tensor) -> Tensor:
        a, b, d = self.averages()
        return self.multiply_channels(self.matrices(a, b, d), matrix)

    def trace(self) -> Tensor:
        a, _, d = self.averages()
        return self.reduce_sum(a + d) if self.bias else self.reduce_sum(a)

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        a, b, d = self.averages()
        return (self.matrices(a, b, d),)

    def factors(self) -> dict[str, NDArray[np.float32]]:
        found = super().factors()
        (a, d), b = found["squares"], found["cross"]
        if not self.bias:
            return {"F": a.reshape(-1, 1, 1)}
        return {"F": np.stack([a, b, b, d], axis=1).reshape(-1, 2, 2)}

    def dimensions(self) -> str:
        return f"{self.channels} x F {self.width}"
