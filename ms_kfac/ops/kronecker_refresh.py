r"""The damped inverses of a layer's Kronecker factors, from their sums."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.damped_inverse import DampedInverse
from ms_kfac.ops.factored_tikhonov import FactoredTikhonov
from ms_kfac.ops.layer_refresh import LayerRefresh


class KroneckerRefresh(LayerRefresh):
    r"""Recompute K-FAC's inverses of one layer.

    .. math::
        A^{-1} \leftarrow (A + \pi \sqrt\lambda I)^{-1}, \qquad
        G^{-1} \leftarrow \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1}, \qquad
        \pi = \sqrt{\frac{\mathrm{tr} A / \dim A}{\mathrm{tr} G / \dim G}}

    (Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    section 6.3). A layer without statistics gets identities.

    The native form shares its threads over the factors of all layers in a call. A factor that is not positive
    definite in float32 is inverted in float64 there, one that is not so either with ten times its damping,
    again and again, and a warning; the composed form raises.

    Where a factor of any layer in a call holds NaN or Inf, the native form changes nothing of any layer. An
    inverse that fails for another reason stays too, but those of other factors may be new.

    Args:
        layer: the layer's name.
        arrays: the Parameters A_sum :math:`([g,] d_{in}, d_{in})`, G_sum :math:`([g,] d_{out}, d_{out})`,
            weights (2), A_inverse and G_inverse, float32; with a leading axis where there are g groups. The
            inverses are written.
        splits: whether traces split the damping; without, :math:`\pi = 1`. Default: True.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: where a factor holds NaN or Inf, or can't be inverted as said above.

    Platforms: CPU, GPU (native, or composed of Cholesky and CholeskySolve).
    """

    ARRAYS = ("A_sum", "G_sum", "weights", "A_inverse", "G_inverse")

    def __init__(self, layer: str, arrays: Sequence[Parameter], *, splits: bool = True) -> None:
        super().__init__("kronecker_refresh", layer, arrays, splits=int(splits))
        shape_A, shape_G = arrays[0].shape, arrays[1].shape
        groups = shape_A[0] if len(shape_A) == 3 else 1
        self.factored_tikhonov = FactoredTikhonov(shape_A[-1], shape_G[-1], groups=groups, splits=splits)
        self.damped_inverse = DampedInverse()
        self.assign = ops.Assign()

    def composed(self, damping: Tensor) -> bool:
        A_sum, G_sum, weights, A_inverse, G_inverse = self.arrays
        A, G, damping_A, damping_G = self.factored_tikhonov(A_sum, G_sum, weights, damping)
        self.assign(A_inverse, self.damped_inverse(A, damping_A))
        self.assign(G_inverse, self.damped_inverse(G, damping_G))
        return True
