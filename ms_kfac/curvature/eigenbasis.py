r"""EKFAC's block: K-FAC's eigenvectors with the true second moments of the gradient along them.

With :math:`A = Q_A S_A Q_A^{\top}` and :math:`G = Q_G S_G Q_G^{\top}`,

.. math::
    F \approx (Q_A \otimes Q_G) \, \mathrm{diag}(\mathrm{vec}\, s) \, (Q_A \otimes Q_G)^{\top}, \qquad
    s = E_n\left[(Q_G^{\top} dW_n Q_A)^2\right], \qquad
    U = Q_G \left[\frac{Q_G^{\top} dW Q_A}{s + \lambda}\right] Q_A^{\top}

(George et al. 2018, "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis"). Of all
diagonals in that basis s is the nearest to F in the Frobenius norm; K-FAC's own is :math:`S_G S_A^{\top}`, so
that EKFAC is never farther from F than K-FAC with the same basis.
"""

from __future__ import annotations

from functools import cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer, LayerOperators
from ms_kfac.curvature.factored import FactoredBlock
from ms_kfac.ops.decay import Fading
from ms_kfac.ops.eigenbasis_precondition import InEigenbasis
from ms_kfac.ops.eigenbasis_refresh import EigenbasisRefresh
from ms_kfac.ops.eigenbasis_statistics import EigenbasisStatistics
from ms_kfac.ops.flat_buffer import Share
from ms_kfac.ops.statistics import StatisticsOptions


@cache
def eigenbasis_statistics(operators: LayerOperators, options: StatisticsOptions) -> EigenbasisStatistics:
    """The statistics operator that all layers of one geometry share.

    Args:
        operators: how a layer's inputs and output gradients become rows or columns.
        options: how a batch enters.

    Returns:
        The operator. It sees every location even in the reduce setting: its second moments are of whole
        gradients.
    """
    return EigenbasisStatistics(
        operators.activations(False),
        operators.gradients(False),
        operators.second_moment(),
        channels_first=operators.channels_first,
        options=options,
        geometry=operators.native_geometry(),
    )


class EigenbasisBlock(FactoredBlock):
    r"""Fisher block that is diagonal in the eigenbasis of K-FAC's factors.

    A refresh recomputes the basis. Second moments belong to the basis in which they were measured, so they
    start anew; until the first batch is measured the block has K-FAC's eigenvalues :math:`S_G S_A^{\top}`, of
    which nothing remains afterwards.

    Args:
        layer: the layer.
        prefix: what the names of the Parameters start with.
        options: how a batch enters the statistics.

    Note:
        Until a backward pass has reached the layer its gradient passes unchanged. Within the eigenspace of a
        repeated eigenvalue, such as the null space of a factor of few samples, the basis is not determined,
        and later second moments depend on which one rounding gives.
    """

    kind = "eigenbasis"
    # The second moments fade with G; counts belong to all: decay_group is written out below.
    statistic_groups = ((0,), (1, 5))
    read_by_all = "EKFAC's second moments are taken and used on every device"
    follows = True

    def __init__(self, layer: Layer, *, prefix: str, options: StatisticsOptions) -> None:
        super().__init__(layer, prefix=prefix)
        self.statistics = eigenbasis_statistics(layer.operators, options)
        self.A_sum = self.matrix_parameter("A_sum", np.zeros((self.dim_A, self.dim_A)))
        self.G_sum = self.matrix_parameter("G_sum", np.zeros((self.dim_G, self.dim_G)))
        self.counts = self.parameter("counts", np.zeros(3))
        self.Q_A = self.matrix_parameter("Q_A", np.eye(self.dim_A))
        self.Q_G = self.matrix_parameter("Q_G", np.eye(self.dim_G))
        self.s_sum = self.matrix_parameter("s_sum", np.zeros((self.dim_G, self.dim_A)))
        # Whether the basis has been recomputed since the optimizer last looked.
        self.fresh = self.parameter("fresh", 0.0)
        self.state = (self.A_sum, self.G_sum, self.counts, self.Q_A, self.Q_G, self.s_sum)
        self.S_A = self.matrix_parameter("S_A", np.zeros((1, self.dim_A)))
        self.S_G = self.matrix_parameter("S_G", np.zeros((self.dim_G, 1)))
        # λ as of the last refresh; 1, with second moments of 0, for a layer without statistics.
        self.damping = self.parameter("damping", 1.0)
        arrays = (*self.state, self.fresh, self.S_A, self.S_G, self.damping)
        self.layer_refresh = EigenbasisRefresh(self.layer_name, arrays)
        product = ops.MatMul if self.groups == 1 else ops.BatchMatMul
        self.transposed_matmul = product(transpose_a=True)
        self.matmul_by_transposed = product(transpose_b=True)
        self.count_masks = tuple(Tensor(row, ms.float32) for row in ((1, 0, 0), (0, 1, 1)))

    def averages(self) -> tuple[Tensor, Tensor]:
        A = self.A_sum / self.maximum(self.element(self.counts, 0), self.smallest_count)
        G = self.G_sum / self.maximum(self.element(self.counts, 1), self.smallest_count)
        return A, G

    def second_moments(self) -> Tensor:
        """s, or K-FAC's eigenvalues until it is measured: :math:`([g,] d_{out}, d_{in})`."""
        unmeasured = self.cast(self.equal(self.element(self.counts, 2), 0.0), ms.float32)
        measured = self.s_sum / self.maximum(self.element(self.counts, 2), self.smallest_count)
        return measured + unmeasured * self.S_G * self.S_A

    def written_by_tap(self) -> tuple[Parameter, ...]:
        """The sums and their weights; the basis is only read."""
        return (self.A_sum, self.G_sum, self.counts, self.s_sum)

    def decay(self, factor: Tensor) -> bool:
        for parameter in (self.A_sum, self.G_sum, self.s_sum, self.counts):
            self.assign(parameter, parameter * factor)
        return True

    def decay_group(self, group: int, factor: Tensor) -> bool:
        for index in self.statistic_groups[group]:
            self.assign(self.state[index], self.state[index] * factor)
        fading = self.count_masks[group]
        self.assign(self.counts, self.counts * (1.0 - fading + fading * factor))
        return True

    def fading(self, separate: bool) -> tuple[tuple[Fading, ...], ...] | None:
        return None if separate else ((self.A_sum, self.G_sum, self.s_sum, self.counts),)

    def statistic_shares(self) -> tuple[Share, ...]:
        sums = Share(self.A_sum, symmetric=True), Share(self.G_sum, symmetric=True)
        return (*sums, *self.current_shares())

    def current_shares(self) -> tuple[Share, ...]:
        return Share(self.s_sum), Share(self.counts)

    def inverse_shares(self) -> tuple[Share, ...]:
        return (Share(self.damping),)

    def state_shares(self) -> tuple[Share, ...]:
        # Second moments are measured in the basis wherever there are samples; the eigenvalues stand in for
        # them in traces and products, which every device computes.
        basis = Share(self.Q_A), Share(self.Q_G), Share(self.S_A), Share(self.S_G)
        return (*basis, Share(self.fresh), Share(self.counts))

    def follow(self) -> bool:
        # A new basis has cleared the count of the second moments, which was sent.
        kept = self.cast(self.element(self.counts, 2) > 0, ms.float32)
        self.assign(self.s_sum, self.s_sum * kept)
        return True

    def to_basis(self, matrix: Tensor) -> Tensor:
        r""":math:`Q_G^{\top} M Q_A`."""
        return self.matmul(self.transposed_matmul(self.Q_G, matrix), self.Q_A)

    def from_basis(self, matrix: Tensor) -> Tensor:
        r""":math:`Q_G M Q_A^{\top}`."""
        return self.matmul_by_transposed(self.matmul(self.Q_G, matrix), self.Q_A)

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.from_basis(self.to_basis(matrix) / (self.second_moments() + self.damping))

    def native_precondition(self) -> InEigenbasis:
        return InEigenbasis(self.Q_A, self.Q_G, self.s_sum, self.counts, self.S_A, self.S_G, self.damping)

    def product(self, matrix: Tensor) -> Tensor:
        return self.from_basis(self.to_basis(matrix) * self.second_moments())

    def trace(self) -> Tensor:
        return self.sum_all(self.second_moments())

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """A and G, the basis, and s (K-FAC's eigenvalues until it is measured)."""
        counts = self.counts.asnumpy()
        moments = self.S_G.asnumpy() * self.S_A.asnumpy()
        if counts[2] > 0:
            moments = self.s_sum.asnumpy() / counts[2]
        sums = {"A": self.A_sum.asnumpy(), "G": self.G_sum.asnumpy()}
        factors = {name: sums[name] / max(counts[i], self.SMALLEST_COUNT) for i, name in enumerate(sums)}
        return {**factors, "Q_A": self.Q_A.asnumpy().copy(), "Q_G": self.Q_G.asnumpy().copy(), "s": moments}
