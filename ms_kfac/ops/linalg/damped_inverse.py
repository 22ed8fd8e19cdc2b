r"""Inverse of a damped factor by Cholesky decomposition."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.ops.operations.math_ops import CholeskySolve

from ms_kfac.ops.linalg.guarded_cholesky import GuardedCholesky


class DampedInverse(nn.Cell):
    r"""Compute :math:`(F + c I)^{-1} = L^{-\top} L^{-1}` with :math:`F + c I = L L^{\top}`.

    Inputs:
        - **factor** (Tensor) - shape :math:`(d, d)`, or :math:`(g, d, d)` for a batch of g, float32, positive
          semi-definite.
        - **damping** (Tensor) - scalar, or shape :math:`(g, 1, 1)`, float32, positive.

    Outputs:
        Tensor of the factor's shape, float32; NaN where :class:`GuardedCholesky` gives up.

    Platforms: CPU, GPU (composed of Cholesky and CholeskySolve).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.shape = ops.Shape()
        self.eye = ops.Eye()
        self.cholesky = GuardedCholesky()
        self.solve = CholeskySolve()

    def construct(self, factor: Tensor, damping: Tensor) -> Tensor:
        shape = self.shape(factor)
        identity = self.eye(shape[-1], shape[-1], ms.float32)
        L = self.cholesky(factor + damping * identity)
        if len(shape) == 3:
            identity = ops.broadcast_to(identity, shape)
        return self.solve(identity, L)
