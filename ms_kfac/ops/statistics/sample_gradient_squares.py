"""Sum of squared per-sample gradients."""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class SampleGradientSquares(nn.Cell):
    r"""Sum over samples of the squared gradients, :math:`\sum_n (\sum_t g_{n,t} p_{n,t}^{\top})^2`.

    With one location per sample, the sum is one product, :math:`(g^2)^{\top} p^2`. Otherwise the per-sample
    gradients are materialized, :math:`N d_{out} d_{in}` elements.

    Args:
        columns: True if the inputs are columns (convolutions), False if they are rows (dense layers).

    Inputs:
        - **p** (Tensor) - rows :math:`(N T, d_{in})`, with the locations of a sample contiguous, or columns
          :math:`(N, [g,] d_{in}, T)`, float32.
        - **g** (Tensor) - output gradients, in the layout of **p** with :math:`d_{out}`.
        - **samples** (int) - N.

    Outputs:
        Tensor, :math:`([g,] d_{out}, d_{in})`, float32: a sum, not a mean.

    Platforms: CPU, GPU, Ascend (composed of MatMul or BatchMatMul, Square and ReduceSum).
    """

    def __init__(self, *, columns: bool) -> None:
        super().__init__(auto_prefix=False)
        self.columns = columns
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.square = ops.Square()
        self.reduce_sum = ops.ReduceSum()
        self.matmul = ops.MatMul(transpose_a=True)
        self.product_of_columns = ops.BatchMatMul(transpose_b=True)
        self.product_of_rows = ops.BatchMatMul(transpose_a=True)

    def construct(self, p: Tensor, g: Tensor, samples: int) -> Tensor:
        shape = self.shape(p)
        if self.columns:
            if len(shape) == 3 and shape[2] == 1:
                return self.of_single_locations(
                    self.reshape(p, (samples, -1)), self.reshape(g, (samples, -1))
                )
            return self.reduce_sum(self.square(self.product_of_columns(g, p)), 0)
        if shape[0] == samples:
            return self.of_single_locations(p, g)
        p = self.reshape(p, (samples, -1, shape[1]))
        g = self.reshape(g, (samples, -1, self.shape(g)[1]))
        return self.reduce_sum(self.square(self.product_of_rows(g, p)), 0)

    def of_single_locations(self, p: Tensor, g: Tensor) -> Tensor:
        """Sum of squares for rows, one row per sample."""
        return self.matmul(self.square(g), self.square(p))
