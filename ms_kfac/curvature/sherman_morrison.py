r"""K-FAC's block whose inverses are soon updated by rank-one steps in the place of being recomputed.

The first k refreshes invert the damped factors as K-FAC does. From then on a refresh takes the diagonals of
the factors alone, :math:`u_i = \sqrt{A_{ii}}` and :math:`v_i = \sqrt{G_{ii}}`, and

.. math::
    A^{-1} \leftarrow (A + \alpha u u^{\top})^{-1} =
    A^{-1} - \frac{(A^{-1} u)(A^{-1} u)^{\top}}{1 / \alpha + u^{\top} A^{-1} u}

and likewise :math:`G^{-1}` with v and :math:`\beta` (Liu, Gao & Wang 2021, "K-FAC Algorithm Based on
Sherman-Morrison Formula", equations 6 to 8). A refresh then costs :math:`O(d^2)` in the place of
:math:`O(d^3)`, and a batch of statistics :math:`O(d)` a location in the place of :math:`O(d^2)`.

Where the printed text is not followed:

* its loop counts from 0 while t <= k, which makes k + 1 full refreshes; here there are k, as its prose
  says;
* :math:`u u^{\top}` is called diagonal there; it is a dense matrix of rank one that has A's diagonal, and
  that is what its equations 7 and 8 use;
* the denominator of :math:`\pi` is the trace of G; the printed D is a misprint.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.factored import FactoredBlock
from ms_kfac.ops.element import element
from ms_kfac.ops.factored_tikhonov import splits_by_traces
from ms_kfac.ops.flat_buffer import Share
from ms_kfac.ops.kronecker_precondition import TwoSided
from ms_kfac.ops.sherman_morrison_refresh import ShermanMorrisonOptions, ShermanMorrisonRefresh
from ms_kfac.ops.sherman_morrison_statistics import ShermanMorrisonStatistics
from ms_kfac.ops.statistics import GRADIENTS, INPUTS, StatisticsOptions


class ShermanMorrisonBlock(FactoredBlock):
    r"""Fisher block with Kronecker factors whose inverses get rank-one updates after the first k refreshes.

    A refresh is full or rank-one, and statistics between two refreshes are as the later of the two needs
    them. Refreshes are counted from the first statistics of the layer on. A full refresh that finds no full
    statistics (statistics rarer than inverses) is put off: a rank-one update, not counted, takes its place.

    The damping :math:`\lambda` enters by K-FAC's split at full refreshes. Rank-one updates only add to the
    implied factor :math:`P = (A^{-1})^{-1}`, so its inverse shrinks from one to the next. With ``rescale``
    the matrix inverted is a multiple of P with the trace t* of the damped factor that K-FAC would invert now.
    With :math:`c_A` A's share of the present damping:

    .. math::
        t^* = \mathrm{tr} A + d\,c_A, \qquad
        U \propto dW \left(\tfrac{t^*}{t} P\right)^{-1} = \tfrac{t}{t^*}\, dW P^{-1}, \qquad t = \mathrm{tr} P

    t is known at a full refresh, and :math:`\mathrm{tr}(P + \alpha u u^{\top}) = t + \alpha\,\mathrm{tr} A`:
    it is kept in a Parameter, and the factor t / t* in another. P itself stays as printed: every u keeps the
    weight it came with. (Rescaling P before each update instead would make it a moving average of the
    :math:`u u^{\top}`, whose inverse grows like :math:`(1 + \alpha)^m` over m updates; this one's grows no
    faster than :math:`1 + \alpha m` while traces stay put.)

    Args:
        layer: the layer.
        prefix: what the names of the Parameters start with.
        options: how a batch enters the statistics.
        full_refreshes: k, the number of full refreshes at the start. Default: 10.
        weights: :math:`\alpha` and :math:`\beta`. Default: (0.1, 0.1).
        rescale: whether the implied factors are scaled to the tracked traces. Default: False.
        interval: number of rank-one updates after which one refresh is full again; None for never. The sums
            that it uses start anew after the last of those updates.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each
            :math:`\sqrt\lambda`. Default: "pi".

    Note:
        Until a backward pass has reached the layer its inverses are identities: its gradient passes
        unchanged.
    """

    kind = "Sherman-Morrison"
    read_by_all = "SMKFAC's full sums start anew on all devices where the refresh of one says so"
    follows = True

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
        if full_refreshes < 1:
            raise ValueError(f"full_refreshes must be an int of at least 1, got {full_refreshes!r}")
        super().__init__(layer, prefix=prefix)
        self.rescales = rescale
        self.operator = layer_statistics(ShermanMorrisonStatistics, layer.operators, options)
        self.add_factors()
        self.add_statistic("A_diagonal", (*self.leading, self.dim_A), weight=2, gate=INPUTS, power=0)
        self.add_statistic("G_diagonal", (*self.leading, self.dim_G), weight=3, gate=GRADIENTS, power=2)
        self.create_weights(4, period)
        # Whether the coming refresh is full: what the statistics ask.
        self.full = self.parameter("full", 1.0)
        staged = (self.A_batch, self.G_batch, self.A_diagonal_batch, self.G_diagonal_batch)
        self.staged = (*staged, self.record, self.full)
        self.refreshes = self.parameter("refreshes", 0.0)
        self.A_inverse = self.matrix_parameter("A_inverse", np.eye(self.dim_A))
        self.G_inverse = self.matrix_parameter("G_inverse", np.eye(self.dim_G))
        if rescale:
            self.A_trace = self.matrix_parameter("A_trace", np.full((1, 1), float(self.dim_A)))
            self.G_trace = self.matrix_parameter("G_trace", np.full((1, 1), float(self.dim_G)))
            # Of both inverses together, as they are only ever applied together.
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
        """Tracked diagonals of A and G, :math:`([g,] d)`; zeros before the first statistics."""
        return self.estimate(self.A_diagonal_sum, 2), self.estimate(self.G_diagonal_sum, 3)

    def inverse_shares(self) -> tuple[Share, ...]:
        inverses = Share(self.A_inverse, symmetric=True), Share(self.G_inverse, symmetric=True)
        if not self.rescales:
            return inverses
        return (*inverses, Share(self.A_trace), Share(self.G_trace), Share(self.scale))

    def state_shares(self) -> tuple[Share, ...]:
        return Share(self.full), Share(self.refreshes), Share(self.weights)

    def follow(self) -> bool:
        # Where the refresh has cleared the full sums it has cleared their counts, and those were sent.
        kept = self.cast(self.slice(self.weights, (0,), (2,)) > 0, ms.float32)
        self.assign(self.A_sum, self.A_sum * element(kept, 0))
        self.assign(self.G_sum, self.G_sum * element(kept, 1))
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        update = self.matmul(self.matmul(self.G_inverse, matrix), self.A_inverse)
        return update * self.scale if self.rescales else update

    def native_precondition(self) -> TwoSided:
        return TwoSided((self.G_inverse,), (self.A_inverse,), self.scale if self.rescales else None)

    def product(self, matrix: Tensor) -> Tensor:
        # s A s with s_i = √(a_i / A_ii) has the tracked diagonal a, as trace() has: A itself while statistics
        # are full, afterwards the correlations of the last full ones in the present scale. Where the sums
        # have been cleared for new ones the diagonals stand alone.
        A, G = self.averages()
        a, g = self.diagonals()
        empty = self.cast(self.slice(self.weights, (0,), (2,)) == 0, ms.float32)
        eye_A = self.eye(self.dim_A, self.dim_A, ms.float32)
        eye_G = self.eye(self.dim_G, self.dim_G, ms.float32)
        A, G = A + empty[0] * eye_A, G + empty[1] * eye_G
        A_diagonal = self.sum_all(A * eye_A, -1)
        G_diagonal = self.sum_all(G * eye_G, -1)
        # A coordinate that was always zero has a zero row and column: any scale will do.
        scale_A = self.sqrt(a / (A_diagonal + self.cast(A_diagonal == 0, ms.float32)))
        scale_G = self.sqrt(g / (G_diagonal + self.cast(G_diagonal == 0, ms.float32)))
        rows, columns = self.expand_dims(scale_G, -1), self.expand_dims(scale_A, -2)
        return self.matmul(self.matmul(G, matrix * rows * columns), A) * rows * columns

    def trace(self) -> Tensor:
        a, g = self.diagonals()
        return self.sum_all(self.sum_all(a, -1) * self.sum_all(g, -1))

    def observed(self, group: int) -> tuple[Tensor, ...]:
        """The tracked diagonal: what is there after every refresh of the statistics."""
        a, g = self.diagonals()
        return (a,) if group == 0 else (g,)
