r"""The quadratic model of the loss that a second-order step minimizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.ops.step.gradient_views import GradientViews


class QuadraticModel(nn.Cell):
    r"""Predict the change of the loss for a step from the quadratic model.

    .. math::
        M(\delta) - M(0) = \nabla h^{\top} \delta + \tfrac12 \sum_l \delta_l^{\top} F_l \delta_l
        + \tfrac12 \lambda \|\delta\|^2

    (Martens & Grosse 2015, section 6.5), where :math:`F_l` is the undamped block of a layer from the current
    statistics. Parameters outside the blocks have no curvature here.

    Args:
        blocks: the curvature blocks.
        views: appends views to the step, for this operator alone. Its ``positions`` are the indices of the
            steps of weight and bias, per block.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the mean loss before the step, one per parameter.
        - **step** (tuple[Tensor]) - :math:`\delta`, one per parameter.
        - **damping** (Tensor) - :math:`\lambda`, scalar float32.

    Outputs:
        Tensor, scalar float32.

    Platforms: CPU, GPU, Ascend (composed of MindSpore operators).
    """

    def __init__(self, blocks: Sequence[Any], views: GradientViews) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(blocks, auto_prefix=False)
        self.views, self.positions = views, views.positions
        self.reduce_sum = ops.ReduceSum()
        self.cast = ops.Cast()
        self.addn = ops.AddN()

    def construct(self, gradients: tuple[Tensor, ...], step: tuple[Tensor, ...], damping: Tensor) -> Tensor:
        terms: tuple[Tensor, ...] = ()
        for position in range(len(step)):
            delta = self.cast(step[position], ms.float32)
            gradient = self.cast(gradients[position], ms.float32)
            terms = (*terms, self.reduce_sum(delta * (gradient + delta * (0.5 * damping))))
        if self.views.changes:
            step = self.views(step)
        for index in range(len(self.blocks)):
            block = self.blocks[index]
            positions = self.positions[index]
            delta = block.weight_matrix(step[positions[0]], step[positions[-1]])
            terms = (*terms, self.reduce_sum(delta * block.multiply(delta)) * 0.5)
        return self.addn(terms)
