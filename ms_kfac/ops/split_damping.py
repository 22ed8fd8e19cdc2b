r"""Two Kronecker factors from their sums, and the damping of each."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.ops.element import element
from ms_kfac.ops.pi_split import pi_split

# Below any weight that a moving average leaves; keeps 0 / 0 at 0 before the first statistics.
SMALLEST_COUNT = 1e-30


class SplitDamping(nn.Cell):
    r"""Average A and G and split :math:`\lambda` over them (:func:`ms_kfac.ops.pi_split.pi_split`).

    Args:
        dim_A: dimension of A.
        dim_G: dimension of G.
        groups: where there are more than one, A and G have a leading axis.

    Inputs:
        - **A_sum** (Tensor) - shape :math:`([g,] d_{in}, d_{in})`, float32.
        - **G_sum** (Tensor) - shape :math:`([g,] d_{out}, d_{out})`, float32.
        - **weights** (Tensor) - the weights of A and of G, then maybe others, float32.
        - **damping** (Tensor) - :math:`\lambda`, scalar float32.

    Outputs:
        Tuple of A, G and what is added to their diagonals: scalars, or :math:`(g, 1, 1)`. While A's weight is
        0, before the first statistics, both are 1, so that the damped factors are identities.

    Platforms: CPU, GPU, Ascend (composed of ReduceSum and elementwise operators).
    """

    def __init__(self, dim_A: int, dim_G: int, *, groups: int) -> None:
        super().__init__(auto_prefix=False)
        self.dim_A = dim_A
        self.dim_G = dim_G
        self.reduce_sum = ops.ReduceSum(keep_dims=groups > 1)
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.maximum = ops.Maximum()
        self.eye = ops.Eye()

    def construct(
        self, A_sum: Tensor, G_sum: Tensor, weights: Tensor, damping: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        A_weight, G_weight = element(weights, 0), element(weights, 1)
        A = A_sum / self.maximum(A_weight, SMALLEST_COUNT)
        G = G_sum / self.maximum(G_weight, SMALLEST_COUNT)
        unseen = self.cast(self.equal(A_weight, 0.0), ms.float32)
        trace_A = self.reduce_sum(A * self.eye(self.dim_A, self.dim_A, ms.float32), (-2, -1))
        trace_G = self.reduce_sum(G * self.eye(self.dim_G, self.dim_G, ms.float32), (-2, -1))
        damping_A, damping_G = pi_split(trace_A, self.dim_A, trace_G, self.dim_G, damping)
        damping_A = damping_A + unseen * (1.0 - damping_A)
        damping_G = damping_G + unseen * (1.0 - damping_G)
        return A, G, damping_A, damping_G
