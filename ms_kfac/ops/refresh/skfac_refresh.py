r"""Inverses of a layer's low-rank factors from the rows of a batch (SKFAC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.graph.element import element
from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.linalg.low_rank_inverse import LowRankInverse
from ms_kfac.ops.refresh.factored_tikhonov import SMALLEST_COUNT, pi_split
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh


class SKFACRefresh(LayerRefresh):
    r"""Recompute SKFAC's solvers of one layer.

    For a factor of R < d rows X, the solver is Z, padded with rows of zeros at the end, where

    .. math::
        (D I_d + X^{\top} X)^{-1} = \frac1D \left[ I_d - Z^{\top} Z \right]

    (:class:`ms_kfac.ops.linalg.low_rank_inverse.LowRankInverse`). For any other factor, the solver is the
    damped inverse (Tang et al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored
    Approximate Curvature"). :math:`D = \sqrt\lambda`, or the result of K-FAC's damping split. A layer
    without statistics of both factors does not change. Before its first statistics, its gradient passes
    unchanged.

    The native kernel processes the factors of all layers in a call in parallel. It uses the ranks that the
    statistics operator recorded. It treats a dense factor that is not positive definite as
    :class:`ms_kfac.ops.refresh.kronecker_refresh.KroneckerRefresh` does. It decomposes the small matrix of
    rows in float64 if float32 fails, without additional damping.

    Args:
        layer: the layer's name.
        arrays: the Parameters A_rows :math:`([g,] d_{in}, d_{in})`, G_rows, weights (4: rows of A and of G,
            then their ranks), A_solver of A_rows' shape, G_solver, A_damping :math:`([g,] 1, 1)`, G_damping
            and solver_ranks (2: the ranks of A and G, 0 before the first refresh), float32. The operator
            writes the last five.
        factor_ranks: function that returns the ranks of A and G when a graph is compiled.
        splits: True to split the damping by the traces, False for :math:`\pi = 1`.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: by the native kernel outside an optimizer, if a factor has no inverse.

    Platforms: CPU, GPU (native kernel, or fallback of Cholesky, SolveTriangular, CholeskySolve and matrix
    products).
    """

    ARRAYS = ("A_rows", "G_rows", "weights", "A_solver", "G_solver", "A_damping", "G_damping", "solver_ranks")

    def __init__(self, layer: str, arrays: Sequence[Parameter], factor_ranks: Any, *, splits: bool) -> None:
        super().__init__("skfac_refresh", layer, arrays, splits=int(splits))
        shape_A, shape_G = arrays[0].shape, arrays[1].shape
        grouped = len(shape_A) == 3
        self.leading: tuple[int, ...] = (shape_A[0],) if grouped else ()
        self.dim_A, self.dim_G = shape_A[-1], shape_G[-1]
        self.factor_ranks = factor_ranks
        self.splits = splits
        self.damped_inverse = DampedInverse()
        self.low_rank_inverse = LowRankInverse(groups=shape_A[0] if grouped else 1)
        self.reduce_sum = ops.ReduceSum(keep_dims=grouped)
        self.square = ops.Square()
        self.sqrt = ops.Sqrt()
        self.maximum = ops.Maximum()
        self.eye = ops.Eye()
        self.zeros = ops.Zeros()
        self.pad_rows = ops.Concat(axis=-2)
        self.reshape = ops.Reshape()
        self.assign = ops.Assign()
        self.stack = ops.Stack()
        self.one = Tensor(1.0, ms.float32)

    def fallback(self, damping: Tensor) -> bool:
        if element(self.arrays[2], 0) * element(self.arrays[2], 1) > 0.0:
            self.refresh(damping)
        return True

    def refresh(self, damping: Tensor) -> bool:
        """Fallback for a layer with statistics of both factors."""
        A_rows, G_rows, weights, A_solver, G_solver, A_damping, G_damping, solver_ranks = self.arrays
        rank_A, rank_G = self.factor_ranks()
        A = self.rows_or_factor(A_rows, weights, 0, self.dim_A, rank_A)
        G = self.rows_or_factor(G_rows, weights, 1, self.dim_G, rank_G)
        trace_A = self.factor_trace(A, self.dim_A, rank_A)
        trace_G = self.factor_trace(G, self.dim_G, rank_G)
        damping_A, damping_G = pi_split(
            trace_A, self.dim_A, trace_G, self.dim_G, damping, by_traces=self.splits
        )
        self.assign(A_solver, self.solver(A, self.dim_A, rank_A, damping_A))
        self.assign(G_solver, self.solver(G, self.dim_G, rank_G, damping_G))
        shape = A_damping.shape
        self.assign(A_damping, self.reshape(damping_A, shape))
        self.assign(G_damping, self.reshape(damping_G, shape))
        self.assign(solver_ranks, self.stack((self.one * rank_A, self.one * rank_G)))
        return True

    def rows_or_factor(
        self, buffer: Parameter, weights: Parameter, index: int, dim: int, rank: int
    ) -> Tensor:
        """X (rank, dim) of the factor XᵀX if rank < dim, else the factor. Zeros without statistics."""
        present = self.maximum(element(weights, index), SMALLEST_COUNT)
        if rank < dim:
            return buffer[..., :rank, :] / self.sqrt(present)
        return buffer / present

    def factor_trace(self, statistics: Tensor, dim: int, rank: int) -> Tensor:
        """Trace of a factor from the result of :meth:`rows_or_factor`, one per group."""
        if rank < dim:
            return self.reduce_sum(self.square(statistics), (-2, -1))
        return self.reduce_sum(statistics * self.eye(dim, dim, ms.float32), (-2, -1))

    def solver(self, statistics: Tensor, dim: int, rank: int, root: Tensor) -> Tensor:
        """Z of a factor's rows, padded with zero rows, if rank < dim; else the damped inverse."""
        if rank < dim:
            Z = self.low_rank_inverse(statistics, root)
            return self.pad_rows((Z, self.zeros((*self.leading, dim - rank, dim), ms.float32)))
        return self.damped_inverse(statistics, root)
