r"""EKFAC's block: K-FAC's eigenvectors with the exact second moments of the gradient along them.

With :math:`A = Q_A S_A Q_A^{\top}` and :math:`G = Q_G S_G Q_G^{\top}`,

.. math::
    F \approx (Q_A \otimes Q_G) \, \mathrm{diag}(\mathrm{vec}\, s) \, (Q_A \otimes Q_G)^{\top}, \qquad
    s = E_n\left[(Q_G^{\top} dW_n Q_A)^2\right], \qquad
    U = Q_G \left[\frac{Q_G^{\top} dW Q_A}{s + \lambda}\right] Q_A^{\top}

(George et al. 2018, "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis"). Among
all diagonals in this basis, s is the closest to F in the Frobenius norm. K-FAC's diagonal is
:math:`S_G S_A^{\top}`. So EKFAC is never farther from F than K-FAC with the same basis.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.factored import FactoredBlock
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.refresh.eigenbasis_refresh import EigenbasisRefresh
from ms_kfac.ops.statistics.eigenbasis_statistics import EigenbasisStatistics
from ms_kfac.ops.statistics.layer_statistics import GRADIENTS, StatisticsOptions
from ms_kfac.ops.step.eigenbasis_precondition import EigenbasisForm


class EigenbasisBlock(FactoredBlock):
    r"""Fisher block that is diagonal in the eigenbasis of K-FAC's factors.

    A refresh recomputes the basis. Second moments are valid only in the basis in which they were measured, so
    a refresh also resets them. Until the first batch is measured in the new basis, the block uses K-FAC's
    eigenvalues :math:`S_G S_A^{\top}`. They do not enter the later averages.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.

    Note:
        Until a backward pass has reached the layer, its gradient passes through unchanged. The basis is not
        unique within the eigenspace of a repeated eigenvalue, such as the null space of a factor of few
        samples. There the basis depends on rounding, and so do later second moments.
    """

    kind = "eigenbasis"
    read_by_all_reason = "EKFAC takes and uses second moments on all ranks"
    applies_remote_refresh = True
    used_before_refresh = True

    def __init__(self, layer: Layer, *, prefix: str, options: StatisticsOptions, period: int = 1) -> None:
        super().__init__(layer, prefix=prefix)
        self.operator = layer_statistics(EigenbasisStatistics, layer.operators, options)
        self.add_factors()
        shape = (*self.leading, self.dim_G, self.dim_A)
        self.add_statistic("s", shape, weight=2, gate=GRADIENTS, power=2)
        self.create_weights(3, period)
        self.Q_A = self.matrix_parameter("Q_A", np.eye(self.dim_A))
        self.Q_G = self.matrix_parameter("Q_G", np.eye(self.dim_G))
        # Whether the basis has been recomputed since the optimizer last checked.
        self.fresh = self.parameter("fresh", 0.0)
        self.staged = (self.A_batch, self.G_batch, self.record, self.Q_A, self.Q_G, self.s_batch)
        self.S_A = self.matrix_parameter("S_A", np.zeros((1, self.dim_A)))
        self.S_G = self.matrix_parameter("S_G", np.zeros((self.dim_G, 1)))
        # λ of the last refresh. A layer without statistics has 1, and second moments of 0: the identity.
        self.damping = self.parameter("damping", 1.0)
        basis = (self.Q_A, self.Q_G, self.s_sum, self.fresh, self.S_A, self.S_G, self.damping)
        self.layer_refresh = EigenbasisRefresh(
            self.layer_name, (self.A_sum, self.G_sum, self.weights, *basis)
        )
        product = ops.MatMul if self.groups == 1 else ops.BatchMatMul
        self.transposed_matmul = product(transpose_a=True)
        self.matmul_by_transposed = product(transpose_b=True)

    def second_moments(self) -> Tensor:
        """s, or K-FAC's eigenvalues until s is measured: :math:`([g,] d_{out}, d_{in})`."""
        unmeasured = self.cast(self.equal(element(self.weights, 2), 0.0), ms.float32)
        return self.estimate(self.s_sum, 2) + unmeasured * self.S_G * self.S_A

    def current_shares(self) -> tuple[SyncedTensor, ...]:
        return SyncedTensor(self.s_sum), SyncedTensor(self.weights)

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        return (SyncedTensor(self.damping),)

    def refresh_state(self) -> tuple[SyncedTensor, ...]:
        # All ranks measure second moments in the basis. All ranks compute traces and products, which use the
        # eigenvalues until second moments are measured.
        basis = SyncedTensor(self.Q_A), SyncedTensor(self.Q_G), SyncedTensor(self.S_A), SyncedTensor(self.S_G)
        return (*basis, SyncedTensor(self.fresh), SyncedTensor(self.weights))

    def apply_remote_refresh(self) -> bool:
        # A new basis resets the weight of the second moments, and the weight was broadcast.
        kept = self.cast(element(self.weights, 2) > 0, ms.float32)
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

    def native_precondition(self) -> EigenbasisForm:
        return EigenbasisForm(self.Q_A, self.Q_G, self.s_sum, self.weights, self.S_A, self.S_G, self.damping)

    def multiply(self, matrix: Tensor) -> Tensor:
        return self.from_basis(self.to_basis(matrix) * self.second_moments())

    def trace(self) -> Tensor:
        return self.sum_all(self.second_moments())

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """A and G, the basis, and s (K-FAC's eigenvalues until s is measured)."""
        factors = super().factors()
        if self.weights.asnumpy()[2] == 0:
            factors["s"] = self.S_G.asnumpy() * self.S_A.asnumpy()
        return {**factors, "Q_A": self.Q_A.asnumpy().copy(), "Q_G": self.Q_G.asnumpy().copy()}
