r"""The diagonal block: one curvature per weight.

.. math::
    s = E_n[\nabla w_n^2], \qquad U = \frac{dW}{s + \lambda}

where :math:`\nabla w_n` is the gradient of sample n. s is the diagonal of the Fisher (Becker & LeCun 1988,
"Improving the Convergence of Back-Propagation Learning with Second Order Methods", for the damped diagonal).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ms_kfac.capture.layer import OTHER, Layer
from ms_kfac.curvature.block import CurvatureBlock, layer_statistics
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.statistics.diagonal_statistics import DiagonalStatistics, gradient_square
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, StatisticsOptions


class DiagonalBlock(CurvatureBlock):
    r"""Diagonal Fisher block of a dense layer, a convolution, or a Parameter outside all layers.

    For a Parameter outside all layers (``blocks={"other": DiagonalBlock}``), only the gradient of the batch
    is known. Its square replaces the squares of the per-sample gradients:
    :math:`s = E[(\sum_n \nabla w_n)^2 / N]`.
    :class:`ms_kfac.ops.statistics.diagonal_statistics.GradientSquare` explains what this estimates.

    A layer with several locations per sample needs per-sample gradients: :math:`N d_{out} d_{in}` numbers.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.

    Raises:
        TypeError: if the layer is an embedding or a normalisation layer.

    Note:
        Until a backward pass has reached the layer, its gradient passes through unchanged.
    """

    kind = "diagonal"

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        return layer.kind not in ("embedding", "normalization")

    def __init__(self, layer: Layer, *, prefix: str, options: StatisticsOptions, period: int = 1) -> None:
        super().__init__(layer, prefix=prefix)
        if layer.kind == OTHER:
            self.operator = gradient_square()
        else:
            self.operator = layer_statistics(DiagonalStatistics, layer.operators, options)
        shape = (*self.leading, layer.output_dimension, layer.input_dimension)
        self.add_statistic("s", shape, weight=0, gate=EVERYTHING, power=2)
        self.create_weights(1, period)
        self.staged = (self.s_batch, self.record)
        self.inverse = self.parameter("inverse", np.ones(shape))
        self.reduce_sum = ops.ReduceSum()
        self.cast = ops.Cast()
        self.equal = ops.Equal()

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        return (SyncedTensor(self.inverse),)

    def refresh(self, damping: Tensor) -> bool:
        unseen = self.cast(self.equal(element(self.weights, 0), 0.0), ms.float32)
        damping = damping + unseen * (1.0 - damping)
        self.assign(self.inverse, 1.0 / (self.estimate(self.s_sum, 0) + damping))
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.inverse * matrix

    def multiply(self, matrix: Tensor) -> Tensor:
        return self.estimate(self.s_sum, 0) * matrix

    def trace(self) -> Tensor:
        return self.reduce_sum(self.estimate(self.s_sum, 0))

    def dimensions(self) -> str:
        return f"s {' x '.join(map(str, self.s_batch.shape))}"
