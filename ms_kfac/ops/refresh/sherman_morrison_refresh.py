r"""Full and rank-one refreshes of the inverses of a layer's Kronecker factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.graph.element import element
from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.linalg.rank_one_inverse import RankOneInverse
from ms_kfac.ops.refresh.factored_tikhonov import SMALLEST_COUNT, pi_split
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh


@dataclass(frozen=True)
class ShermanMorrisonOptions:
    r"""Schedule of full refreshes, and options of the rank-one updates.

    Attributes:
        full_refreshes: k, the number of full refreshes at the start.
        weights: :math:`\alpha` and :math:`\beta`.
        rescale: whether the implied factors are scaled to the tracked traces.
        interval: number of rank-one updates before the next full refresh; None for no further full refresh.
        splits: True to split the damping by the traces, False for :math:`\pi = 1`. Default: True.
    """

    full_refreshes: int
    weights: tuple[float, float]
    rescale: bool
    interval: int | None
    splits: bool = True


class ShermanMorrisonRefresh(LayerRefresh):
    r"""Recompute one layer's inverses, or apply a rank-one update to them (SMKFAC).

    .. math::
        A^{-1} \leftarrow A^{-1} - \frac{(A^{-1} u)(A^{-1} u)^{\top}}{1 / \alpha + u^{\top} A^{-1} u}, \qquad
        u_i = \sqrt{A_{ii}}

    and likewise :math:`G^{-1}` with :math:`\beta` and G's diagonal (Liu, Gao & Wang 2021, "K-FAC Algorithm
    Based on Sherman-Morrison Formula", equations 6 to 8).
    :class:`ms_kfac.curvature.sherman_morrison.ShermanMorrisonBlock` describes the schedule of full and
    rank-one refreshes, the traces and the scale. A layer without statistics keeps its inverses.

    The native kernel refreshes the layers of a call in parallel. A factor that is not positive definite,
    or has no inverse, is treated as by :class:`ms_kfac.ops.refresh.kronecker_refresh.KroneckerRefresh`.

    Args:
        layer: the layer's name.
        arrays: the Parameters A_sum :math:`([g,] d_{in}, d_{in})`, G_sum :math:`([g,] d_{out}, d_{out})`,
            A_diagonal :math:`([g,] d_{in})`, G_diagonal, counts (4: of these arrays), full (scalar, whether
            this refresh should be full), refreshes (scalar, number of refreshes so far), A_inverse, G_inverse
            and, with ``rescale``, A_trace :math:`([g,] 1, 1)`, G_trace and scale, float32. The operator only
            reads the diagonals. It clears the sums if they restart, and writes the other arrays.
        options: schedule of full refreshes, and options of the rank-one updates.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: by the native kernel outside an optimizer, if a factor has no inverse at a full refresh,
            or if a diagonal holds NaN or Inf at a rank-one refresh.

    Platforms: CPU, GPU (native kernel, or fallback of Cholesky, CholeskySolve, MatMul or BatchMatMul and
    elementwise operators).
    """

    ARRAYS = (
        "A_sum",
        "G_sum",
        "A_diagonal",
        "G_diagonal",
        "counts",
        "full",
        "refreshes",
        "A_inverse",
        "G_inverse",
        "A_trace",
        "G_trace",
        "scale",
    )

    def __init__(self, layer: str, arrays: Sequence[Parameter], options: ShermanMorrisonOptions) -> None:
        alpha, beta = options.weights
        super().__init__(
            "sherman_morrison_refresh",
            layer,
            arrays,
            full_refreshes=options.full_refreshes,
            interval=options.interval or 0,
            rescales=int(options.rescale),
            splits=int(options.splits),
            alpha=float(alpha),
            beta=float(beta),
        )
        shape_A, shape_G = arrays[0].shape, arrays[1].shape
        self.dim_A, self.dim_G = shape_A[-1], shape_G[-1]
        grouped = len(shape_A) == 3
        self.trace_shape = (shape_A[0], 1, 1) if grouped else (1, 1)
        self.full_refreshes = options.full_refreshes
        self.alpha, self.beta = alpha, beta
        self.rescales = options.rescale
        self.splits = options.splits
        self.repeats = options.interval is not None
        self.interval = options.interval or 0
        self.damped_inverse = DampedInverse()
        self.rank_one_A = RankOneInverse(alpha)
        self.rank_one_G = RankOneInverse(beta)
        self.reduce_sum = ops.ReduceSum(keep_dims=grouped)
        self.assign = ops.Assign()
        self.cast = ops.Cast()
        self.eye = ops.Eye()
        self.maximum = ops.Maximum()
        self.reshape = ops.Reshape()
        self.sqrt = ops.Sqrt()
        self.of_diagonals = Tensor(np.array([0.0, 0.0, 1.0, 1.0]), ms.float32)

    def fallback(self, damping: Tensor) -> bool:
        counts, full = self.arrays[4], self.arrays[5]
        # Without full statistics of both factors, a full refresh is postponed.
        ready = full * self.cast(element(counts, 0) * element(counts, 1) > 0, ms.float32)
        if ready > 0:
            self.invert(damping)
        else:
            self.update(damping)
        return True

    def invert(self, damping: Tensor) -> bool:
        """Full refresh: invert the damped factors."""
        A_sum, G_sum, counts = self.arrays[0], self.arrays[1], self.arrays[4]
        A = A_sum / self.maximum(element(counts, 0), SMALLEST_COUNT)
        G = G_sum / self.maximum(element(counts, 1), SMALLEST_COUNT)
        trace_A = self.reduce_sum(A * self.eye(self.dim_A, self.dim_A, ms.float32), (-2, -1))
        trace_G = self.reduce_sum(G * self.eye(self.dim_G, self.dim_G, ms.float32), (-2, -1))
        damping_A, damping_G = self.split(trace_A, trace_G, damping)
        self.assign(self.arrays[7], self.damped_inverse(A, damping_A))
        self.assign(self.arrays[8], self.damped_inverse(G, damping_G))
        if self.rescales:
            A_trace, G_trace, scale = self.arrays[9:]
            self.assign(A_trace, self.reshape(trace_A + damping_A * self.dim_A, self.trace_shape))
            self.assign(G_trace, self.reshape(trace_G + damping_G * self.dim_G, self.trace_shape))
            self.assign(scale, scale * 0.0 + 1.0)
        self.count_refresh(self.arrays[6] + 1.0)
        return True

    def split(self, trace_A: Tensor, trace_G: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
        """Split the damping between A and G."""
        return pi_split(trace_A, self.dim_A, trace_G, self.dim_G, damping, by_traces=self.splits)

    def update(self, damping: Tensor) -> bool:
        """Rank-one refresh: update the inverses."""
        counts, full, refreshes, A_inverse, G_inverse = self.arrays[4:9]
        a = self.arrays[2] / self.maximum(element(counts, 2), SMALLEST_COUNT)
        g = self.arrays[3] / self.maximum(element(counts, 3), SMALLEST_COUNT)
        self.assign(A_inverse, self.rank_one_A(A_inverse, self.sqrt(a)))
        self.assign(G_inverse, self.rank_one_G(G_inverse, self.sqrt(g)))
        if self.rescales:
            A_trace, G_trace, scale = self.arrays[9:]
            trace_A = self.reshape(self.reduce_sum(a, -1), self.trace_shape)
            trace_G = self.reshape(self.reduce_sum(g, -1), self.trace_shape)
            damping_A, damping_G = self.split(trace_A, trace_G, damping)
            implied_A = A_trace + self.alpha * trace_A
            implied_G = G_trace + self.beta * trace_G
            target_A = trace_A + damping_A * self.dim_A
            target_G = trace_G + damping_G * self.dim_G
            # The scale is 1 for a layer without statistics, whose inverses stay identity matrices.
            seen = self.cast(element(counts, 2) * element(counts, 3) > 0, ms.float32)
            self.assign(scale, 1.0 + seen * ((implied_A / target_A) * (implied_G / target_G) - 1.0))
            self.assign(A_trace, implied_A)
            self.assign(G_trace, implied_G)
        self.count_refresh(refreshes + (1.0 - full))
        return True

    def count_refresh(self, refreshes: Tensor) -> bool:
        """Store the number of refreshes, and decide whether the next refresh is full."""
        A_sum, G_sum, counts, before = self.arrays[0], self.arrays[1], self.arrays[4], self.arrays[5]
        self.assign(self.arrays[6], refreshes)
        full = self.cast(refreshes < self.full_refreshes, ms.float32)
        if self.repeats:
            position = (refreshes - self.full_refreshes) % (self.interval + 1)
            again = self.cast(position == self.interval, ms.float32)
            full = self.maximum(full, (1.0 - full) * again)
            if full > before:
                # The sums are older than all rank-one updates since the last full refresh.
                self.assign(A_sum, A_sum * 0.0)
                self.assign(G_sum, G_sum * 0.0)
                self.assign(counts, counts * self.of_diagonals)
        self.assign(before, full)
        return True
