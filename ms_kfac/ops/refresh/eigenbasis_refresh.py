r"""Eigendecomposition of a layer's Kronecker factors (EKFAC)."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.graph.element import element
from ms_kfac.ops.linalg.eigendecomposition import Eigendecomposition
from ms_kfac.ops.refresh.factored_tikhonov import SMALLEST_COUNT
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh


class EigenbasisRefresh(LayerRefresh):
    r"""Recompute the eigenbasis of one layer and reset its second moments, which belong to the old basis.

    .. math::
        A = Q_A S_A Q_A^{\top}, \qquad G = Q_G S_G Q_G^{\top}, \qquad s \leftarrow 0

    (George et al. 2018, "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis",
    algorithm 1, ComputeEigenBasis). Eigenvalues ascend. Eigenvectors are columns. Their signs, and the basis
    of the eigenspace of a repeated eigenvalue, differ between the native kernel and the fallback. A layer
    without statistics gets identity matrices, :math:`S_G = 0` and a damping of 1.

    Args:
        layer: the layer's name.
        arrays: the Parameters A_sum :math:`([g,] d_{in}, d_{in})`, G_sum :math:`([g,] d_{out}, d_{out})`,
            counts (3: A, G and s), Q_A, Q_G, s_sum :math:`([g,] d_{out}, d_{in})`, fresh (scalar, set to 1),
            S_A :math:`([g,] 1, d_{in})`, S_G :math:`([g,] d_{out}, 1)` and damping (scalar), float32. The
            operator writes all of them except A_sum and G_sum.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: by the native kernel of CPUs, if a factor has more than 32766 rows; no layer changes
            then. Also if LAPACK's iterations do not converge. The basis of that factor is lost then, because
            LAPACK works in place. Outside an optimizer, also if a factor holds NaN or Inf; no layer changes
            then, and on a GPU the next call raises. In an optimizer, such a factor is reported, and its layer
            keeps its basis; on a GPU all layers of the call do.

    Platforms: CPU, GPU (native kernel: LAPACK on CPUs, Jacobi's method on GPUs; or fallback of Eigh, one call
        per matrix).
    """

    ARRAYS = ("A_sum", "G_sum", "weights", "Q_A", "Q_G", "s_sum", "fresh", "S_A", "S_G", "damping")

    def __init__(self, layer: str, arrays: Sequence[Parameter]) -> None:
        super().__init__("eigenbasis_refresh", layer, arrays)
        self.dim_A = arrays[0].shape[-1]
        self.dim_G = arrays[1].shape[-1]
        self.eigendecomposition = Eigendecomposition()
        self.expand_dims = ops.ExpandDims()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.maximum = ops.Maximum()
        self.eye = ops.Eye()
        self.assign = ops.Assign()
        self.of_factors = Tensor([1.0, 1.0, 0.0], ms.float32)

    def fallback(self, damping: Tensor) -> bool:
        A_sum, G_sum, counts, Q_A, Q_G, s_sum, fresh, S_A, S_G, last_damping = self.arrays
        unseen = self.cast(self.equal(element(counts, 0), 0.0), ms.float32)
        A = A_sum / self.maximum(element(counts, 0), SMALLEST_COUNT)
        G = G_sum / self.maximum(element(counts, 1), SMALLEST_COUNT)
        values_A, vectors_A = self.eigendecomposition(
            A + unseen * self.eye(self.dim_A, self.dim_A, ms.float32)
        )
        values_G, vectors_G = self.eigendecomposition(
            G + unseen * self.eye(self.dim_G, self.dim_G, ms.float32)
        )
        self.assign(Q_A, vectors_A)
        self.assign(Q_G, vectors_G)
        self.assign(S_A, self.expand_dims(values_A, -2))
        self.assign(S_G, self.expand_dims(values_G, -1) * (1.0 - unseen))
        self.assign(s_sum, s_sum * 0.0)
        self.assign(counts, counts * self.of_factors)
        self.assign(last_damping, damping + unseen * (1.0 - damping))
        self.assign(fresh, fresh * 0.0 + 1.0)
        return True
