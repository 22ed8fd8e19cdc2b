r"""K-FAC's block: :math:`F \approx A \otimes G`, A of the layer's inputs and G of its output gradients.

For row-major :math:`dW \in \mathbb{R}^{d_{out} \times d_{in}}` with independent a and g,
:math:`E[\mathrm{vec}(g a^{\top}) \mathrm{vec}(g a^{\top})^{\top}] = E[g g^{\top} \otimes a a^{\top}] \approx
G \otimes A`, and the damped inverse acts as

.. math::
    U = \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1} dW \left(A + \pi \sqrt\lambda I\right)^{-1}

(Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", sections
4.2 and 6.3; for convolutions Grosse & Martens 2016, "A Kronecker-factored Approximate Fisher Matrix for
Convolution Layers", section 3).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.factored import FactoredBlock
from ms_kfac.damping import pi_split
from ms_kfac.ops.damped_inverse import DampedInverse
from ms_kfac.ops.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics import StatisticsOptions


class KroneckerBlock(FactoredBlock):
    """Kronecker-factored Fisher block of a dense layer or a convolution.

    Grouped convolutions have one pair of factors a group, as a leading axis of every Parameter here.

    Args:
        layer: the layer.
        prefix: what the names of the Parameters start with.
        options: how a batch enters the statistics.

    Note:
        Until a backward pass has reached the layer its inverses are identities: its gradient passes
        unchanged.
    """

    kind = "Kronecker"
    statistic_groups = ((0, 1), (2, 3))

    def __init__(self, layer: Layer, *, prefix: str, options: StatisticsOptions) -> None:
        super().__init__(layer, prefix=prefix)
        self.statistics = layer_statistics(KroneckerStatistics, layer.operators, options)
        self.A_sum = self.matrix_parameter("A_sum", np.zeros((self.dim_A, self.dim_A)))
        self.G_sum = self.matrix_parameter("G_sum", np.zeros((self.dim_G, self.dim_G)))
        self.A_count = self.parameter("A_count", 0.0)
        self.G_count = self.parameter("G_count", 0.0)
        self.create_inverses()
        self.state = (self.A_sum, self.A_count, self.G_sum, self.G_count)
        self.damped_inverse = DampedInverse()

    def create_inverses(self) -> None:
        """Create what :meth:`refresh` writes and :meth:`precondition` reads, as identities."""
        self.A_inverse = self.matrix_parameter("A_inverse", np.eye(self.dim_A))
        self.G_inverse = self.matrix_parameter("G_inverse", np.eye(self.dim_G))

    def averages(self) -> tuple[Tensor, Tensor]:
        """A and G; zeros before the first statistics."""
        A = self.A_sum / self.maximum(self.A_count, self.smallest_count)
        G = self.G_sum / self.maximum(self.G_count, self.smallest_count)
        return A, G

    def factor_dampings(self, A: Tensor, G: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the diagonals of A and of G, one a group."""
        unseen = self.cast(self.equal(self.A_count, 0.0), ms.float32)
        trace_A, trace_G = self.factor_traces(A, G)
        damping_A, damping_G = pi_split(trace_A, self.dim_A, trace_G, self.dim_G, damping)
        # A layer that no backward pass has reached yet has zero factors: "damped" to the identity.
        return damping_A + unseen * (1.0 - damping_A), damping_G + unseen * (1.0 - damping_G)

    def refresh(self, damping: Tensor) -> bool:
        A, G = self.averages()
        damping_A, damping_G = self.factor_dampings(A, G, damping)
        self.assign(self.A_inverse, self.damped_inverse(A, damping_A))
        self.assign(self.G_inverse, self.damped_inverse(G, damping_G))
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.matmul(self.matmul(self.G_inverse, matrix), self.A_inverse)

    def factors(self) -> dict[str, NDArray[np.float32]]:
        counts = {"A": float(self.A_count.asnumpy()), "G": float(self.G_count.asnumpy())}
        sums = {"A": self.A_sum.asnumpy(), "G": self.G_sum.asnumpy()}
        return {key: sums[key] / counts[key] if counts[key] > 0 else sums[key].copy() for key in sums}
