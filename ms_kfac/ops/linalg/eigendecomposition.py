r"""Eigenvalues and eigenvectors of a factor."""

from __future__ import annotations

from mindspore import Tensor, nn, ops
from mindspore.ops.operations.linalg_ops import Eigh


class Eigendecomposition(nn.Cell):
    r"""Compute :math:`F = Q \, \mathrm{diag}(S) \, Q^{\top}` of a symmetric matrix.

    Inputs:
        - **factor** (Tensor) - shape :math:`(d, d)`, or :math:`(g, d, d)` for a batch of g, float32, positive
          semi-definite.

    Outputs:
        Tuple of S, shape :math:`(d,)` or :math:`(g, d)`, ascending, and Q of the factor's shape, eigenvectors
        as columns; float32. Rounding can make a zero eigenvalue negative, by about :math:`10^{-7}` of the
        largest eigenvalue. Negative eigenvalues are set to 0.

    Platforms: CPU (composed of Eigh, one call per matrix: MindSpore 2.10's CPU kernel accepts a batch but
    returns wrong results).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.shape = ops.Shape()
        self.eigh = Eigh(compute_eigenvectors=True, lower=True)
        self.stack = ops.Stack()
        self.maximum = ops.Maximum()

    def construct(self, factor: Tensor) -> tuple[Tensor, Tensor]:
        shape = self.shape(factor)
        if len(shape) == 2:
            values, vectors = self.eigh(factor)
            return self.maximum(values, 0.0), vectors
        all_values: tuple[Tensor, ...] = ()
        all_vectors: tuple[Tensor, ...] = ()
        for group in range(shape[0]):
            values, vectors = self.eigh(factor[group])
            all_values = (*all_values, values)
            all_vectors = (*all_vectors, vectors)
        return self.maximum(self.stack(all_values), 0.0), self.stack(all_vectors)
