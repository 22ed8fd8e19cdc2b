r"""Inverse of a damped low-rank factor by Woodbury's identity, without a d x d matrix."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.auto_generate import SolveTriangular

from ms_kfac.ops.linalg.guarded_cholesky import GuardedCholesky


class LowRankInverse(nn.Cell):
    r"""Apply :math:`(D I + X^{\top} X)^{-1}` for R < d rows :math:`X \in \mathbb{R}^{R \times d}`.

    Woodbury's identity with one R x R Cholesky decomposition,

    .. math::
        (D I_d + X^{\top} X)^{-1} = \frac1D \left[ I_d - X^{\top} (D I_R + X X^{\top})^{-1} X \right]
        = \frac1D \left[ I_d - Z^{\top} Z \right], \qquad D I_R + X X^{\top} = L L^{\top}, \quad Z = L^{-1} X

    (Tang et al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate Curvature";
    there with :math:`\hat a = X^{\top}`). A refresh computes Z. Preconditioning then takes two products, with
    2 R d m multiply-adds instead of the d^2 m of a dense inverse.

    Inputs:
        - **rows** (Tensor) - X, shape :math:`(R, d)`, or :math:`(g, R, d)` for g groups, float32. Rows of
          zeros change nothing.
        - **damping** (Tensor) - D, scalar float32, positive.

    Outputs:
        Tensor, Z, shape of ``rows``, float32; NaN where :class:`GuardedCholesky` gives up.

    Platforms: CPU (composed of Cholesky, SolveTriangular and matrix products).
    """

    def __init__(self, *, groups: int) -> None:
        super().__init__(auto_prefix=False)
        product = ops.MatMul if groups == 1 else ops.BatchMatMul
        self.matmul = product()
        self.times_transposed = product(transpose_b=True)
        self.transposed_times = product(transpose_a=True)
        self.shape = ops.Shape()
        self.eye = ops.Eye()
        self.cholesky = GuardedCholesky()
        self.solve = SolveTriangular()

    def construct(self, rows: Tensor, damping: Tensor) -> Tensor:
        rank = self.shape(rows)[-2]
        small = self.times_transposed(rows, rows) + damping * self.eye(rank, rank, ms.float32)
        return self.solve(self.cholesky(small), rows, 0, True, False)

    def projected_right(self, matrix: Tensor, Z: Tensor) -> Tensor:
        """Compute H Zᵀ Z for H (..., m, d)."""
        return self.matmul(self.times_transposed(matrix, Z), Z)

    def projected_left(self, matrix: Tensor, Z: Tensor) -> Tensor:
        """Compute Zᵀ Z H for H (..., d, m)."""
        return self.transposed_times(Z, self.matmul(Z, matrix))
