r"""Second moments, the sums of outer products that form the Kronecker factors.

The sum :math:`\sum_r x_r x_r^{\top}` has two operators, one per input layout. Converting one layout to the
other costs about as much as the sum itself.

* rows :math:`X \in \mathbb{R}^{R \times d}` from dense layers: :math:`X^{\top} X`;
* columns :math:`X \in \mathbb{R}^{N \times d \times T}` from convolutions, one matrix per sample with one
  column per location: :math:`\sum_n X_n X_n^{\top}`.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class RowSecondMoment(nn.Cell):
    r"""Sum of outer products of the rows of a matrix, :math:`X^{\top} X`.

    Inputs:
        - **x** (Tensor) - shape :math:`(R, d)`, float32.

    Outputs:
        Tensor, shape :math:`(d, d)`, float32: a sum, not a mean.

    Platforms: CPU, GPU, Ascend (composed of one MatMul).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.matmul = ops.MatMul(transpose_a=True)

    def construct(self, x: Tensor) -> Tensor:
        return self.matmul(x, x)


class ColumnSecondMoment(nn.Cell):
    r"""Sum over samples and locations of outer products of columns, :math:`\sum_n X_n X_n^{\top}`.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, d, T)`, or :math:`(N, g, d, T)` for g groups, float32.

    Outputs:
        Tensor, shape :math:`(d, d)` or :math:`(g, d, d)`, float32: a sum, not a mean.

    There are two methods. One product per sample followed by a sum needs a buffer of :math:`N d^2` elements.
    Transposing all columns into one matrix first needs :math:`N d T` elements. The operator chooses by the
    buffer sizes (with a factor of 2 for the cost of transposing), at compile time.

    Platforms: CPU, GPU, Ascend (composed of BatchMatMul and ReduceSum, or Transpose and (Batch)MatMul).
    """

    # Transposing costs about one more pass over the columns. Up to this ratio of buffer sizes, one product
    # per sample is faster.
    _PRODUCT_BUFFER_ALLOWANCE = 2

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.transpose = ops.Transpose()
        self.reduce_sum = ops.ReduceSum()
        self.matmul = ops.MatMul(transpose_b=True)
        self.batch_matmul = ops.BatchMatMul(transpose_b=True)
        self.allowance = self._PRODUCT_BUFFER_ALLOWANCE

    def construct(self, x: Tensor) -> Tensor:
        shape = self.shape(x)
        d, locations = shape[-2], shape[-1]
        if d <= self.allowance * locations:
            return self.reduce_sum(self.batch_matmul(x, x), 0)
        if len(shape) == 3:
            columns = self.reshape(self.transpose(x, (1, 0, 2)), (d, -1))
            return self.matmul(columns, columns)
        columns = self.reshape(self.transpose(x, (1, 2, 0, 3)), (shape[1], d, -1))
        return self.batch_matmul(columns, columns)
