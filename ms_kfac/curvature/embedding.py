r"""Fisher block of an embedding table: :math:`F \approx A \otimes G` with a diagonal A.

An embedding of V ids is a dense layer without bias on one-hot inputs. Its weight is stored transposed, with
one row per input. The second moment A of one-hot vectors is a diagonal :math:`V \times V` matrix, so only the
diagonal is stored, and its inverse is elementwise:

.. math::
    U = \left(\mathrm{diag}(a) + \pi \sqrt\lambda I\right)^{-1} dW
        \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1}, \qquad
    \pi = \sqrt{\frac{\sum_v a_v / V}{\mathrm{tr} G / d}}

with :math:`dW \in \mathbb{R}^{V \times d}`. The formula is that of Martens & Grosse 2015, "Optimizing Neural
Networks with Kronecker-factored Approximate Curvature", section 6.3. A is diagonal because the inputs are
one-hot.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock, layer_statistics
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.refresh.factored_tikhonov import pi_split, splits_by_traces
from ms_kfac.ops.statistics.embedding_statistics import EmbeddingStatistics
from ms_kfac.ops.statistics.layer_statistics import GRADIENTS, INPUTS, StatisticsOptions


class EmbeddingBlock(CurvatureBlock):
    r"""Fisher block of an embedding table, with a diagonal input factor.

    Let each sample have T ids. In the expand setting, :math:`a_v = E_n[\sum_t 1\{id_{n,t} = v\}]` and
    :math:`G = E_{n,t}[g g^{\top}]`. In the reduce setting,
    :math:`a_v = E_n[(\frac1T \sum_t 1\{id_{n,t} = v\})^2]`, and G comes from the sum of g over t. There A is
    not diagonal, and the block keeps its diagonal.

    Args:
        layer: the layer; its weight is :math:`(V, d)`.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each factor
            :math:`\sqrt\lambda`. Default: "pi".

    Note:
        Until a backward pass has reached the layer, its gradient passes through unchanged. Rows of ids that
        did not occur have zero gradient. Momentum still moves them, as it does without preconditioning.
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
        shape = (self.dim_G, self.dim_G)
        self.add_statistic("G", shape, weight=1, gate=GRADIENTS, power=2, symmetric=True, samples=False)
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
        """The diagonal of A, and G. Both are zero before the first statistics."""
        return self.estimate(self.A_sum, 0), self.estimate(self.G_sum, 1)

    def factor_traces(self, A: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
        """Traces of A and G."""
        return self.reduce_sum(A), self.reduce_sum(G * self.eye(self.dim_G, self.dim_G, ms.float32))

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        return SyncedTensor(self.A_inverse), SyncedTensor(self.G_inverse, symmetric=True)

    def refresh(self, damping: Tensor) -> bool:
        unseen = self.cast(self.equal(element(self.weights, 0), 0.0), ms.float32)
        A, G = self.averages()
        trace_A, trace_G = self.factor_traces(A, G)
        damping_A, damping_G = pi_split(
            trace_A, self.dim_A, trace_G, self.dim_G, damping, by_traces=self.splits
        )
        # Without statistics the factors are zero; a damping of 1 makes the inverses identities.
        self.assign(self.A_inverse, 1.0 / (A + (damping_A + unseen * (1.0 - damping_A))))
        self.assign(self.G_inverse, self.damped_inverse(G, damping_G + unseen * (1.0 - damping_G)))
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.expand_dims(self.A_inverse, 1) * self.matmul(matrix, self.G_inverse)

    def multiply(self, matrix: Tensor) -> Tensor:
        A, G = self.averages()
        return self.expand_dims(A, 1) * self.matmul(matrix, G)

    def trace(self) -> Tensor:
        A, G = self.averages()
        trace_A, trace_G = self.factor_traces(A, G)
        return trace_A * trace_G

    def dimensions(self) -> str:
        return f"A diagonal {self.dim_A}, G {self.dim_G}"
