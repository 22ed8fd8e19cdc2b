r"""Damped inverses of a layer's Kronecker factors (K-FAC)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.refresh.factored_tikhonov import FactoredTikhonov
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh


class KroneckerRefresh(LayerRefresh):
    r"""Recompute K-FAC's inverses of one layer.

    .. math::
        A^{-1} \leftarrow (A + \pi \sqrt\lambda I)^{-1}, \qquad
        G^{-1} \leftarrow \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1}, \qquad
        \pi = \sqrt{\frac{\mathrm{tr} A / \dim A}{\mathrm{tr} G / \dim G}}

    (Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    section 6.3). A layer without statistics gets identity matrices.

    The native kernel inverts the factors of all layers in a call in parallel. A damped factor that is not
    positive definite in float32 is inverted in float64. If that fails too, its damping grows by factors of
    ten up to the trace, with a warning. On CPUs the fallback does the same
    (:class:`ms_kfac.ops.linalg.guarded_cholesky.GuardedCholesky`).

    A factor with NaN or Inf, or one that no damping up to its trace helps, has no inverse. The native kernel
    then raises an error, and no inverse of the call changes. In an optimizer it reports the layer instead. On
    CPUs this layer then keeps its inverses and the others are refreshed; on GPUs all layers of the call keep
    theirs. The fallback on CPUs writes NaN as the inverse, so that the optimizer skips steps until a refresh
    succeeds.

    Args:
        layer: the layer's name.
        arrays: the Parameters A_sum :math:`([g,] d_{in}, d_{in})`, G_sum :math:`([g,] d_{out}, d_{out})`,
            weights (2), A_inverse and G_inverse, float32, with a leading axis for g groups. The operator
            writes the inverses.
        splits: True to split the damping by the traces, False for :math:`\pi = 1`. Default: True.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: by the native kernel outside an optimizer, if a factor has no inverse.

    Platforms: CPU, GPU (native kernel, or fallback of Cholesky and CholeskySolve).
    """

    ARRAYS = ("A_sum", "G_sum", "weights", "A_inverse", "G_inverse")

    def __init__(self, layer: str, arrays: Sequence[Parameter], *, splits: bool = True) -> None:
        super().__init__("kronecker_refresh", layer, arrays, splits=int(splits))
        shape_A, shape_G = arrays[0].shape, arrays[1].shape
        groups = shape_A[0] if len(shape_A) == 3 else 1
        self.factored_tikhonov = FactoredTikhonov(shape_A[-1], shape_G[-1], groups=groups, splits=splits)
        self.damped_inverse = DampedInverse()
        self.assign = ops.Assign()

    def fallback(self, damping: Tensor) -> bool:
        A_sum, G_sum, weights, A_inverse, G_inverse = self.arrays
        A, G, damping_A, damping_G = self.factored_tikhonov(A_sum, G_sum, weights, damping)
        self.assign(A_inverse, self.damped_inverse(A, damping_A))
        self.assign(G_inverse, self.damped_inverse(G, damping_G))
        return True
