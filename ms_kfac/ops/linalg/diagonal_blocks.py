r"""Inverses of the diagonal blocks of a factor, and products with the block-diagonal inverse.

A factor of dimension d is split into :math:`\lfloor d / b \rfloor` blocks of size b. If b does not divide d,
a last block of size :math:`d \bmod b` follows, without padding (Chen et al. 2021, "THOR, Trace-based
Hardware-driven Layer-Oriented Natural Gradient Descent Computation", matrix splitting).
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from ms_kfac.ops.linalg.damped_inverse import DampedInverse


class DiagonalBlocks(nn.Cell):
    r"""Block-diagonal inverse of one damped factor, as two tensors: the blocks of size b, and the last block.

    If :math:`d \le b`, the only block is the last one.

    Args:
        dimension: d.
        split: b.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, dimension: int, split: int) -> None:
        super().__init__(auto_prefix=False)
        self.dimension = dimension
        self.split = split
        self.count = dimension // split if dimension > split else 0
        self.covered = self.count * split
        self.rest = dimension - self.covered
        self.damped_inverse = DampedInverse()
        self.reshape = ops.Reshape()
        self.transpose = ops.Transpose()
        self.stack = ops.Stack()
        self.matmul = ops.MatMul()
        self.batch_matmul = ops.BatchMatMul()
        self.concat_rows = ops.Concat(axis=0)
        self.concat_columns = ops.Concat(axis=1)

    def blocks(self, factor: Tensor) -> Tensor:
        """Stack the blocks of size b, shape (count, b, b)."""
        size = self.split
        parts: tuple[Tensor, ...] = ()
        for index in range(self.count):
            first = index * size
            parts = (*parts, factor[first : first + size, first : first + size])
        return self.stack(parts)

    def inverse_of_blocks(self, factor: Tensor, damping: Tensor) -> Tensor:
        """Invert the damped blocks of size b, shape (count, b, b)."""
        return self.damped_inverse(self.blocks(factor), damping)

    def inverse_of_last(self, factor: Tensor, damping: Tensor) -> Tensor:
        """Invert the damped last block."""
        return self.damped_inverse(factor[self.covered :, self.covered :], damping)

    def from_left(self, inverses: Tensor, last: Tensor, matrix: Tensor) -> Tensor:
        """Multiply the block-diagonal inverse by a matrix of d rows."""
        if self.count == 0:
            return self.matmul(last, matrix)
        rows = self.reshape(matrix[: self.covered], (self.count, self.split, -1))
        product = self.reshape(self.batch_matmul(inverses, rows), (self.covered, -1))
        if self.rest == 0:
            return product
        return self.concat_rows((product, self.matmul(last, matrix[self.covered :])))

    def from_right(self, matrix: Tensor, inverses: Tensor, last: Tensor) -> Tensor:
        """Multiply a matrix of d columns by the block-diagonal inverse."""
        if self.count == 0:
            return self.matmul(matrix, last)
        columns = self.reshape(matrix[:, : self.covered], (-1, self.count, self.split))
        product = self.batch_matmul(self.transpose(columns, (1, 0, 2)), inverses)
        product = self.reshape(self.transpose(product, (1, 0, 2)), (-1, self.covered))
        if self.rest == 0:
            return product
        return self.concat_columns((product, self.matmul(matrix[:, self.covered :], last)))
