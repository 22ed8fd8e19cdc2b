r"""Cholesky decomposition that passes NaN on instead of raising."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class GuardedCholesky(nn.Cell):
    r"""Compute L with :math:`M = L L^{\top}`, or NaN if M holds NaN or Inf.

    MindSpore's kernel on CPUs raises for such a matrix, and a compiled step that has raised once can't run
    again. With NaN in an inverse, the optimizer skips the step and names the layer.

    Inputs:
        - **matrix** (Tensor) - M, shape :math:`(d, d)`, or :math:`(g, d, d)` for a batch of g, float32.

    Outputs:
        Tensor of the same shape, float32.

    Raises:
        RuntimeError: raised by MindSpore's Cholesky on CPU if M is finite, but not positive definite in
            float32.

    Platforms: CPU, GPU (composed of Cholesky, IsFinite and Select).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.cholesky = ops.Cholesky()
        self.isfinite = ops.IsFinite()
        self.reduce_all = ops.ReduceAll()
        self.eye = ops.Eye()
        self.nan = Tensor(float("nan"), ms.float32)

    def construct(self, matrix: Tensor) -> Tensor:
        size = matrix.shape[-1]
        finite = self.reduce_all(self.isfinite(matrix))
        L = self.cholesky(ops.where(finite, matrix, self.eye(size, size, ms.float32)))
        return ops.where(finite, L, self.nan)
