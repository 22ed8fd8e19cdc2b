r"""Symmetric matrices as one triangle each, in a rectangle without gaps.

LAPACK's rectangular full packed format (Gustavson et al. 2010, "Rectangular Full Packed Format for Cholesky's
Algorithm"), with other corners: of

.. math::
    S = \begin{pmatrix} S_{11} & S_{21}^{\top} \\ S_{21} & S_{22} \end{pmatrix}

of dimension n, :math:`S_{21}` is kept whole, and the lower triangle of :math:`S_{11}` beside the upper one
of :math:`S_{22}`, which fit into one rectangle. So packing is slices and sums; positions of single numbers,
which a gather would need, take as much memory as the matrices themselves.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


def packed_size(dimension: int) -> int:
    """Numbers of a packed symmetric matrix.

    Args:
        dimension: its number of rows n.

    Returns:
        n (n + 1) / 2.
    """
    return dimension * (dimension + 1) // 2


class PackedTriangle(nn.Cell):
    """Symmetric matrices to vectors of n (n + 1) / 2 numbers each, one after the other, and back.

    Unpacked matrices are symmetric to the bit; of the two halves of a matrix that is not, packing keeps one.

    Args:
        shape: of the matrices, :math:`(..., n, n)`.

    Attributes:
        size: numbers in the packed form.

    Inputs:
        - **matrices** (Tensor) - of that shape, float32.

    Outputs:
        Tensor, shape (size,).

    Platforms: CPU, GPU, Ascend (composed of Slice, Tril, Triu, Concat and elementwise operators).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(auto_prefix=False)
        *leading, dimension, _ = (int(size) for size in shape)
        self.leading = tuple(leading)
        self.count = 1
        for size in leading:
            self.count *= size
        self.dimension = dimension
        self.matrix_shape = (self.count, dimension, dimension)
        self.size = self.count * packed_size(dimension)
        self.upper = dimension // 2
        self.lower = dimension - self.upper
        self.even = dimension % 2 == 0
        # Rows of the two triangles' rectangle: one more than S11 has where both corners are as large.
        self.rows = self.lower + (1 if self.even else 0)
        self.slice = ops.Slice()
        self.reshape = ops.Reshape()
        self.tril = ops.Tril()
        self.triu = ops.Triu()
        self.strictly_lower = ops.Tril(-1)
        self.strictly_upper = ops.Triu(1)
        self.transpose = ops.Transpose()
        self.concat = ops.Concat()
        self.rows_concat = ops.Concat(-2)
        self.columns_concat = ops.Concat(-1)
        self.zeros = ops.Zeros()

    def block(self, matrices: Tensor, row: int, column: int, rows: int, columns: int) -> Tensor:
        """A block of every matrix."""
        return self.slice(matrices, (0, row, column), (self.count, rows, columns))

    def construct(self, matrices: Tensor) -> Tensor:
        matrices = self.reshape(matrices, self.matrix_shape)
        upper, lower = self.upper, self.lower
        if upper == 0:
            return self.reshape(matrices, (self.size,))
        first = self.tril(self.block(matrices, 0, 0, lower, lower))
        whole = self.block(matrices, lower, 0, upper, lower)
        last = self.triu(self.block(matrices, lower, lower, upper, upper))
        if self.even:
            gap = self.zeros((self.count, 1, lower), ms.float32)
            triangles = self.rows_concat((gap, first)) + self.rows_concat((last, gap))
        else:
            column = self.zeros((self.count, upper, 1), ms.float32)
            row = self.zeros((self.count, 1, lower), ms.float32)
            triangles = first + self.rows_concat((self.columns_concat((column, last)), row))
        packed = self.rows_concat((triangles, whole))
        return self.reshape(packed, (self.size,))

    def unpack(self, packed: Tensor) -> Tensor:
        """The matrices of a packed vector.

        Args:
            packed: shape (size,).

        Returns:
            Shape :math:`(..., n, n)`.
        """
        upper, lower = self.upper, self.lower
        if upper == 0:
            return self.reshape(packed, (*self.leading, 1, 1))
        packed = self.reshape(packed, (self.count, self.rows + upper, lower))
        whole = self.block(packed, self.rows, 0, upper, lower)
        if self.even:
            first = self.block(packed, 1, 0, lower, lower)
            last = self.block(packed, 0, 0, upper, upper)
        else:
            first = self.block(packed, 0, 0, lower, lower)
            last = self.block(packed, 0, 1, upper, upper)
        first = self.tril(first) + self.transpose(self.strictly_lower(first), (0, 2, 1))
        last = self.triu(last) + self.transpose(self.strictly_upper(last), (0, 2, 1))
        above = self.columns_concat((first, self.transpose(whole, (0, 2, 1))))
        matrices = self.rows_concat((above, self.columns_concat((whole, last))))
        return self.reshape(matrices, (*self.leading, self.dimension, self.dimension))
