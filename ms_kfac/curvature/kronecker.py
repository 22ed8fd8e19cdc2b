r"""K-FAC's block: :math:`F \approx A \otimes G`, with A of the inputs and G of the output gradients.

For row-major :math:`dW \in \mathbb{R}^{d_{out} \times d_{in}}` with independent a and g,
:math:`E[\mathrm{vec}(g a^{\top}) \mathrm{vec}(g a^{\top})^{\top}] = E[g g^{\top} \otimes a a^{\top}] \approx
G \otimes A`. The damped inverse acts as

.. math::
    U = \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1} dW \left(A + \pi \sqrt\lambda I\right)^{-1}

(Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", sections
4.2 and 6.3; for convolutions Grosse & Martens 2016, "A Kronecker-factored Approximate Fisher Matrix for
Convolution Layers", section 3).
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.factored import FactoredBlock
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.refresh.factored_tikhonov import splits_by_traces
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from ms_kfac.ops.step.kronecker_precondition import KroneckerForm


class KroneckerBlock(FactoredBlock):
    r"""Kronecker-factored Fisher block of a dense layer or a convolution.

    A grouped convolution has one pair of factors per group, along a leading axis of every Parameter.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each factor
            :math:`\sqrt\lambda`. Default: "pi".

    Note:
        Until a backward pass has reached the layer, its inverses are identities and its gradient passes
        through unchanged.
    """

    kind = "Kronecker"

    def __init__(
        self,
        layer: Layer,
        *,
        prefix: str,
        options: StatisticsOptions,
        period: int = 1,
        damping_split: str = "pi",
    ) -> None:
        super().__init__(layer, prefix=prefix)
        self.splits = splits_by_traces(damping_split)
        self.operator = layer_statistics(KroneckerStatistics, layer.operators, options)
        self.add_factors()
        self.create_weights(2, period)
        self.staged = (self.A_batch, self.G_batch, self.record)
        self.create_inverses()

    def create_inverses(self) -> None:
        """Create the inverses, as identities, and the operator that refreshes them."""
        self.A_inverse = self.matrix_parameter("A_inverse", np.eye(self.dim_A))
        self.G_inverse = self.matrix_parameter("G_inverse", np.eye(self.dim_G))
        arrays = (self.A_sum, self.G_sum, self.weights, self.A_inverse, self.G_inverse)
        self.layer_refresh = KroneckerRefresh(self.layer_name, arrays, splits=self.splits)

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        return SyncedTensor(self.A_inverse, symmetric=True), SyncedTensor(self.G_inverse, symmetric=True)

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.matmul(self.matmul(self.G_inverse, matrix), self.A_inverse)

    def native_precondition(self) -> KroneckerForm:
        return KroneckerForm((self.G_inverse,), (self.A_inverse,))
