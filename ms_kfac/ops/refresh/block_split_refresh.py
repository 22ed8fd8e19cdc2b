r"""Damped inverses of the diagonal blocks of a layer's Kronecker factors (THOR)."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.linalg.diagonal_blocks import DiagonalBlocks
from ms_kfac.ops.refresh.factored_tikhonov import FactoredTikhonov
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh


class BlockSplitRefresh(LayerRefresh):
    r"""Recompute THOR's inverses of one layer.

    .. math::
        (A_{jj} + \pi \sqrt\lambda I)^{-1}, \qquad \left(G_{ii} + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1}

    :math:`A_{jj}` and :math:`G_{ii}` are the diagonal blocks of A and G, of at most ``split`` rows (Chen et
    al. 2021, "THOR, Trace-based Hardware-driven Layer-Oriented Natural Gradient Descent Computation").
    :math:`\pi` is computed from the whole factors. A layer without statistics gets identity matrices.

    The native kernel inverts the blocks of all layers in a call in parallel. A block that is not positive
    definite, or has no inverse, is treated as by
    :class:`ms_kfac.ops.refresh.kronecker_refresh.KroneckerRefresh`.

    Args:
        layer: the layer's name.
        arrays: the Parameters A_sum :math:`(d_{in}, d_{in})`, G_sum :math:`(d_{out}, d_{out})`, weights (2),
            then for A and for G the inverses of the blocks of full size (count, split, split) and of the
            last block, float32. The operator writes the inverses.
        split: maximum block size.
        splits: True to split the damping by the traces, False for :math:`\pi = 1`. Default: True.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32, positive.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: by the native kernel outside an optimizer, if a block has no inverse.

    Platforms: CPU, GPU (native kernel, or fallback of Cholesky and CholeskySolve).
    """

    ARRAYS = ("A_sum", "G_sum", "weights", "A_inverses", "A_last_inverse", "G_inverses", "G_last_inverse")

    def __init__(self, layer: str, arrays: Sequence[Parameter], *, split: int, splits: bool = True) -> None:
        super().__init__("block_split_refresh", layer, arrays, split=split, splits=int(splits))
        dim_A, dim_G = arrays[0].shape[0], arrays[1].shape[0]
        self.factored_tikhonov = FactoredTikhonov(dim_A, dim_G, groups=1, splits=splits)
        self.A_blocks = DiagonalBlocks(dim_A, split)
        self.G_blocks = DiagonalBlocks(dim_G, split)
        self.assign = ops.Assign()

    def fallback(self, damping: Tensor) -> bool:
        A_sum, G_sum, weights, A_inverses, A_last, G_inverses, G_last = self.arrays
        A, G, damping_A, damping_G = self.factored_tikhonov(A_sum, G_sum, weights, damping)
        if self.A_blocks.count > 0:
            self.assign(A_inverses, self.A_blocks.inverse_of_blocks(A, damping_A))
        if self.A_blocks.rest > 0:
            self.assign(A_last, self.A_blocks.inverse_of_last(A, damping_A))
        if self.G_blocks.count > 0:
            self.assign(G_inverses, self.G_blocks.inverse_of_blocks(G, damping_G))
        if self.G_blocks.rest > 0:
            self.assign(G_last, self.G_blocks.inverse_of_last(G, damping_G))
        return True
