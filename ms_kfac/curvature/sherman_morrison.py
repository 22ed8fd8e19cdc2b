r"""SMKFAC's block: K-FAC with Sherman-Morrison (rank-one) updates of the inverses.

The first k refreshes invert the damped factors as K-FAC does. Later refreshes use only the diagonals of the
factors, :math:`u_i = \sqrt{A_{ii}}` and :math:`v_i = \sqrt{G_{ii}}`, to update

.. math::
    A^{-1} \leftarrow (A + \alpha u u^{\top})^{-1} =
    A^{-1} - \frac{(A^{-1} u)(A^{-1} u)^{\top}}{1 / \alpha + u^{\top} A^{-1} u}

and likewise :math:`G^{-1}` with v and :math:`\beta` (Liu, Gao & Wang 2021, "K-FAC Algorithm Based on
Sherman-Morrison Formula", equations 6 to 8). Such a refresh costs :math:`O(d^2)` instead of :math:`O(d^3)`.
Statistics for it cost :math:`O(d)` per location instead of :math:`O(d^2)`.

Deviations from the paper's text:

* The paper's loop counts from 0 while t <= k, which makes k + 1 full refreshes. Here there are k, as the
  paper's prose says.
* The paper calls :math:`u u^{\top}` diagonal. It is a dense matrix of rank one with A's diagonal, and the
  paper's equations 7 and 8 use it as such.
* The denominator of :math:`\pi` is the trace of G. The printed D is a misprint.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.factored import FactoredBlock
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.refresh.factored_tikhonov import splits_by_traces
from ms_kfac.ops.refresh.sherman_morrison_refresh import ShermanMorrisonOptions, ShermanMorrisonRefresh
from ms_kfac.ops.statistics.layer_statistics import GRADIENTS, INPUTS, StatisticsOptions
from ms_kfac.ops.statistics.sherman_morrison_statistics import ShermanMorrisonStatistics
from ms_kfac.ops.step.kronecker_precondition import KroneckerForm
from ms_kfac.values import check_count, check_flag, check_number, shown


class ShermanMorrisonBlock(FactoredBlock):
    r"""Kronecker-factored Fisher block with rank-one updates of the inverses after the first k refreshes.

    A refresh is either full or rank-one. The statistics between two refreshes are those that the later
    refresh needs. Refreshes are counted from the layer's first statistics. If statistics are rarer than
    inverses, a full refresh may find no full statistics. It is then postponed, and a rank-one update, which
    is not counted, replaces it.

    Full refreshes split the damping :math:`\lambda` between the factors as K-FAC does. Rank-one updates only
    add to the implied factor :math:`P = (A^{-1})^{-1}`, so its inverse shrinks with every update. With
    ``rescale``, the inverted matrix is a multiple of P. Its trace t* is that of the damped factor that K-FAC
    would invert now. With :math:`c_A` the part of the current damping that A gets:

    .. math::
        t^* = \mathrm{tr} A + d\,c_A, \qquad
        U \propto dW \left(\tfrac{t^*}{t} P\right)^{-1} = \tfrac{t}{t^*}\, dW P^{-1}, \qquad t = \mathrm{tr} P

    A full refresh computes t, and :math:`\mathrm{tr}(P + \alpha u u^{\top}) = t + \alpha\,\mathrm{tr} A`
    updates it. One Parameter holds t, and another holds the factor t / t*. P itself stays as in the paper:
    every u keeps its original weight. Rescaling P before each update would instead make it a moving average
    of the :math:`u u^{\top}`. The inverse of that average grows like :math:`(1 + \alpha)^m` over m updates.
    The inverse used here grows no faster than :math:`1 + \alpha m` while traces are constant.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        full_refreshes: k, the number of full refreshes at the start, at least 1. Default: 10.
        weights: :math:`\alpha` and :math:`\beta`, both positive. Default: (0.1, 0.1).
        rescale: whether to scale the implied factors to the tracked traces. Default: False.
        interval: number of rank-one updates between two full refreshes; None for no further full refresh.
            The sums for a full refresh are reset after the last of those updates. Default: None.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each factor
            :math:`\sqrt\lambda`. Default: "pi".

    Note:
        Until a backward pass has reached the layer, its inverses are identities and its gradient passes
        through unchanged.
    """

    kind = "Sherman-Morrison"
    read_by_all_reason = "a refresh of SMKFAC on one rank resets the full sums on all ranks"
    applies_remote_refresh = True

    def __init__(
        self,
        layer: Layer,
        *,
        prefix: str,
        options: StatisticsOptions,
        full_refreshes: int = 10,
        weights: tuple[float, float] = (0.1, 0.1),
        rescale: bool = False,
        interval: int | None = None,
        period: int = 1,
        damping_split: str = "pi",
    ) -> None:
        full_refreshes = check_count("full_refreshes", full_refreshes)
        weights = _checked_weights(weights)
        rescale = check_flag("rescale", rescale)
        interval = None if interval is None else check_count("interval", interval)
        super().__init__(layer, prefix=prefix)
        self.rescales = rescale
        self.operator = layer_statistics(ShermanMorrisonStatistics, layer.operators, options)
        self.add_factors()
        self.add_statistic("A_diagonal", (*self.leading, self.dim_A), weight=2, gate=INPUTS, power=0)
        diagonal = (*self.leading, self.dim_G)
        self.add_statistic("G_diagonal", diagonal, weight=3, gate=GRADIENTS, power=2, samples=False)
        self.create_weights(4, period)
        # Whether the next refresh is full. The statistics operator reads it.
        self.full = self.parameter("full", 1.0)
        staged = (self.A_batch, self.G_batch, self.A_diagonal_batch, self.G_diagonal_batch)
        self.staged = (*staged, self.record, self.full)
        self.refreshes = self.parameter("refreshes", 0.0)
        self.A_inverse = self.matrix_parameter("A_inverse", np.eye(self.dim_A))
        self.G_inverse = self.matrix_parameter("G_inverse", np.eye(self.dim_G))
        if rescale:
            self.A_trace = self.matrix_parameter("A_trace", np.full((1, 1), float(self.dim_A)))
            self.G_trace = self.matrix_parameter("G_trace", np.full((1, 1), float(self.dim_G)))
            # One scale for both inverses, which are always applied together.
            self.scale = self.matrix_parameter("scale", np.ones((1, 1)))
        sums = [self.A_sum, self.G_sum, self.A_diagonal_sum, self.G_diagonal_sum, self.weights, self.full]
        arrays = [*sums, self.refreshes, self.A_inverse, self.G_inverse]
        if rescale:
            arrays += [self.A_trace, self.G_trace, self.scale]
        refresh_options = ShermanMorrisonOptions(
            full_refreshes, weights, rescale, interval, splits_by_traces(damping_split)
        )
        self.layer_refresh = ShermanMorrisonRefresh(self.layer_name, arrays, refresh_options)
        self.sqrt = ops.Sqrt()
        self.expand_dims = ops.ExpandDims()

    def diagonals(self) -> tuple[Tensor, Tensor]:
        """Tracked diagonals of A and G, :math:`([g,] d)`. Both are zero before the first statistics."""
        return self.estimate(self.A_diagonal_sum, 2), self.estimate(self.G_diagonal_sum, 3)

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        inverses = SyncedTensor(self.A_inverse, symmetric=True), SyncedTensor(self.G_inverse, symmetric=True)
        if not self.rescales:
            return inverses
        return (*inverses, SyncedTensor(self.A_trace), SyncedTensor(self.G_trace), SyncedTensor(self.scale))

    def refresh_state(self) -> tuple[SyncedTensor, ...]:
        return SyncedTensor(self.full), SyncedTensor(self.refreshes), SyncedTensor(self.weights)

    def apply_remote_refresh(self) -> bool:
        # A refresh that clears the full sums clears their weights, and the weights were broadcast.
        kept = self.cast(self.slice(self.weights, (0,), (2,)) > 0, ms.float32)
        self.assign(self.A_sum, self.A_sum * element(kept, 0))
        self.assign(self.G_sum, self.G_sum * element(kept, 1))
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        update = self.matmul(self.matmul(self.G_inverse, matrix), self.A_inverse)
        return update * self.scale if self.rescales else update

    def native_precondition(self) -> KroneckerForm:
        return KroneckerForm((self.G_inverse,), (self.A_inverse,), self.scale if self.rescales else None)

    def multiply(self, matrix: Tensor) -> Tensor:
        # s A s with s_i = √(a_i / A_ii) has the tracked diagonal a, which trace() uses too. While statistics
        # are full, it is A itself. Afterwards it has the correlations of the last full statistics and the
        # current diagonal. If the sums have been cleared, only the diagonals remain.
        A, G = self.averages()
        a, g = self.diagonals()
        empty = self.cast(self.slice(self.weights, (0,), (2,)) == 0, ms.float32)
        eye_A = self.eye(self.dim_A, self.dim_A, ms.float32)
        eye_G = self.eye(self.dim_G, self.dim_G, ms.float32)
        A, G = A + empty[0] * eye_A, G + empty[1] * eye_G
        A_diagonal = self.sum_all(A * eye_A, -1)
        G_diagonal = self.sum_all(G * eye_G, -1)
        # A coordinate that was always zero has a zero row and column, so its scale is arbitrary.
        scale_A = self.sqrt(a / (A_diagonal + self.cast(A_diagonal == 0, ms.float32)))
        scale_G = self.sqrt(g / (G_diagonal + self.cast(G_diagonal == 0, ms.float32)))
        rows, columns = self.expand_dims(scale_G, -1), self.expand_dims(scale_A, -2)
        return self.matmul(self.matmul(G, matrix * rows * columns), A) * rows * columns

    def trace(self) -> Tensor:
        a, g = self.diagonals()
        return self.sum_all(self.sum_all(a, -1) * self.sum_all(g, -1))

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        """The tracked diagonal, which every refresh of the statistics updates."""
        a, g = self.diagonals()
        return (a,) if group == 0 else (g,)


def _checked_weights(weights: Any) -> tuple[float, float]:
    if not isinstance(weights, (tuple, list)) or len(weights) != 2:
        raise TypeError(f"weights must be a pair of numbers in (0, inf), got {shown(weights)}")
    alpha, beta = (check_number("weights", weight, low=0.0, low_open=True) for weight in weights)
    return alpha, beta
