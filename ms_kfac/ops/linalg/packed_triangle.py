r"""Packed storage of symmetric matrices: one triangle each, in a rectangle without gaps.

The format is a variant of LAPACK's rectangular full packed format (Gustavson et al. 2010, "Rectangular Full
Packed Format for Cholesky's Algorithm"), with a different choice of triangles. For

.. math::
    S = \begin{pmatrix} S_{11} & S_{21}^{\top} \\ S_{21} & S_{22} \end{pmatrix}

of dimension n, it stores the whole :math:`S_{21}`, the lower triangle of :math:`S_{11}` and the upper
triangle of :math:`S_{22}`. The two triangles fit into one rectangle, so packing needs only slices and sums. A
gather would need element indices, which take as much memory as the matrices.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


def packed_size(dimension: int) -> int:
    """Number of elements of a packed symmetric matrix.

    Args:
        dimension: number of rows n of the matrix.

    Returns:
        n (n + 1) / 2.
    """
    return dimension * (dimension + 1) // 2


class PackedTriangle(nn.Cell):
    """Pack symmetric matrices into one vector, n (n + 1) / 2 elements per matrix, and unpack them.

    Unpacked matrices are bitwise symmetric. If an input matrix is not symmetric, only one of its halves is
    kept.

    Args:
        shape: shape of the matrices, :math:`(..., n, n)`.

    Attributes:
        size: number of packed elements.

    Inputs:
        - **matrices** (Tensor) - shape ``shape``, float32.

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
        # For even n, S11 and S22 have equal size, and their triangles need one row more than S11 has.
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
        """Slice a block of each matrix."""
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
        """Unpack a vector into symmetric matrices.

        Args:
            packed: shape (size,).

        Returns:
            The matrices, shape :math:`(..., n, n)`.
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
