r"""The block of an embedding table: :math:`F \approx A \otimes G` with a diagonal A.

An embedding of V ids is a dense layer without bias on one-hot inputs whose weight is stored transposed, a row
an input. The second moment A of one-hot vectors is diagonal, so its diagonal is all there is of a :math:`V
\times V` matrix, and inverting it costs nothing:

.. math::
    U = \left(\mathrm{diag}(a) + \pi \sqrt\lambda I\right)^{-1} dW
        \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1}, \qquad
    \pi = \sqrt{\frac{\sum_v a_v / V}{\mathrm{tr} G / d}}

with :math:`dW \in \mathbb{R}^{V \times d}` (Martens & Grosse 2015, "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", section 6.3, for the formula; that A becomes diagonal follows from
the inputs).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock, layer_statistics
from ms_kfac.ops.damped_inverse import DampedInverse
from ms_kfac.ops.element import element
from ms_kfac.ops.embedding_statistics import EmbeddingStatistics
from ms_kfac.ops.factored_tikhonov import pi_split, splits_by_traces
from ms_kfac.ops.flat_buffer import Share
from ms_kfac.ops.statistics import GRADIENTS, INPUTS, StatisticsOptions


class EmbeddingBlock(CurvatureBlock):
    r"""Fisher block of an embedding table, with a diagonal factor of its ids.

    With T ids a sample, in the expand setting :math:`a_v = E_n[\sum_t 1\{id_{n,t} = v\}]` and :math:`G =
    E_{n,t}[g g^{\top}]`. In the reduce setting :math:`a_v = E_n[(\frac1T \sum_t 1\{id_{n,t} = v\})^2]`, the
    diagonal of an A that is not diagonal any more, and G comes from the sum of g over t.

    Args:
        layer: the layer; its weight is :math:`(V, d)`.
        prefix: what the names of the Parameters start with.
        options: how a batch enters the statistics.
        period: passes whose batches add up to one, where that is announced.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each
            :math:`\sqrt\lambda`. Default: "pi".

    Note:
        Until a backward pass has reached the layer its gradient passes unchanged. The rows of ids that did
        not occur have no gradient; momentum still moves them, as it does without preconditioning.
    """

    kind = "diagonal-Kronecker"

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        return layer.kind == "embedding"

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
        self.dim_A, self.dim_G = (int(size) for size in layer.weight.shape)
        self.operator = layer_statistics(EmbeddingStatistics, layer.operators, options)
        self.add_statistic("A", (self.dim_A,), weight=0, gate=INPUTS, power=0)
        self.add_statistic("G", (self.dim_G, self.dim_G), weight=1, gate=GRADIENTS, power=2, symmetric=True)
        self.create_weights(2, period)
        self.staged = (self.A_batch, self.G_batch, self.record)
        self.A_inverse = self.parameter("A_inverse", np.ones(self.dim_A))
        self.G_inverse = self.parameter("G_inverse", np.eye(self.dim_G))
        self.damped_inverse = DampedInverse()
        self.matmul = ops.MatMul()
        self.reduce_sum = ops.ReduceSum()
        self.expand_dims = ops.ExpandDims()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.eye = ops.Eye()

    def averages(self) -> tuple[Tensor, Tensor]:
        """The diagonal of A, and G; zeros before the first statistics."""
        return self.estimate(self.A_sum, 0), self.estimate(self.G_sum, 1)

    def factor_traces(self, A: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
        """Traces of A and G."""
        return self.reduce_sum(A), self.reduce_sum(G * self.eye(self.dim_G, self.dim_G, ms.float32))

    def inverse_shares(self) -> tuple[Share, ...]:
        return Share(self.A_inverse), Share(self.G_inverse, symmetric=True)

    def refresh(self, damping: Tensor) -> bool:
        unseen = self.cast(self.equal(element(self.weights, 0), 0.0), ms.float32)
        A, G = self.averages()
        trace_A, trace_G = self.factor_traces(A, G)
        damping_A, damping_G = pi_split(
            trace_A, self.dim_A, trace_G, self.dim_G, damping, by_traces=self.splits
        )
        # A table that no backward pass has reached yet has zero factors: "damped" to the identity.
        self.assign(self.A_inverse, 1.0 / (A + (damping_A + unseen * (1.0 - damping_A))))
        self.assign(self.G_inverse, self.damped_inverse(G, damping_G + unseen * (1.0 - damping_G)))
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.expand_dims(self.A_inverse, 1) * self.matmul(matrix, self.G_inverse)

    def product(self, matrix: Tensor) -> Tensor:
        A, G = self.averages()
        return self.expand_dims(A, 1) * self.matmul(matrix, G)

    def trace(self) -> Tensor:
        A, G = self.averages()
        trace_A, trace_G = self.factor_traces(A, G)
        return trace_A * trace_G

    def dimensions(self) -> str:
        return f"A diagonal {self.dim_A}, G {self.dim_G}"
