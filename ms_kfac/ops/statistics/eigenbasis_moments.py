r"""EKFAC: second moments of per-sample gradients in a Kronecker-factored basis."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from ms_kfac.ops.statistics.sample_gradient_squares import SampleGradientSquares


class EigenbasisMoments(nn.Cell):
    r"""Sum over samples of the squared gradient coordinates, :math:`\sum_n (Q_G^{\top} dW_n Q_A)^2`.

    :math:`dW_n = \sum_t g_{n,t} p_{n,t}^{\top}` is the gradient of sample n, summed over its locations before
    the square. With one location per sample, :math:`dW_n` has rank one. The sum is then one product of two
    matrices of squares, :math:`\left((g Q_G)^2\right)^{\top} (p Q_A)^2`. Otherwise the per-sample gradients
    are materialized: two buffers of :math:`N d_{out} d_{in}` elements each.

    Args:
        columns: True if the inputs are columns (convolutions), False if they are rows (dense layers).

    Inputs:
        - **p** (Tensor) - rows :math:`(N T, d_{in})`, with the locations of a sample contiguous, or columns
          :math:`(N, d_{in}, T)` or :math:`(N, g, d_{in}, T)` for g groups, float32.
        - **g** (Tensor) - gradients of the per-sample loss, in the layout of **p** with :math:`d_{out}`.
        - **Q_A** (Tensor) - :math:`([g,] d_{in}, d_{in})`, the basis vectors as columns.
        - **Q_G** (Tensor) - :math:`([g,] d_{out}, d_{out})`, the basis vectors as columns.
        - **samples** (int) - N.

    Outputs:
        Tensor, shape :math:`([g,] d_{out}, d_{in})`, float32: a sum, not a mean.

    Platforms: CPU, GPU, Ascend (composed of MatMul, BatchMatMul and elementwise operators).
    """

    def __init__(self, *, columns: bool) -> None:
        super().__init__(auto_prefix=False)
        self.columns = columns
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.square = ops.Square()
        self.reduce_sum = ops.ReduceSum()
        self.matmul = ops.MatMul()
        self.squares_of_rows = SampleGradientSquares(columns=False)
        self.batch_matmul = ops.BatchMatMul()
        self.batch_matmul_of_transposed = ops.BatchMatMul(transpose_a=True)
        self.batch_matmul_by_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, p: Tensor, g: Tensor, Q_A: Tensor, Q_G: Tensor, samples: int) -> Tensor:
        if not self.columns:
            return self.of_rows(p, g, Q_A, Q_G, samples)
        shape = self.shape(p)
        if len(shape) == 3 and shape[2] == 1:
            p, g = self.reshape(p, (samples, -1)), self.reshape(g, (samples, -1))
            return self.of_rows(p, g, Q_A, Q_G, samples)
        return self.of_columns(p, g, Q_A, Q_G, samples)

    def of_rows(self, p: Tensor, g: Tensor, Q_A: Tensor, Q_G: Tensor, samples: int) -> Tensor:
        """Moments of rows. Projecting the rows first takes plain matrix products for any T."""
        return self.squares_of_rows(self.matmul(p, Q_A), self.matmul(g, Q_G), samples)

    def of_columns(self, p: Tensor, g: Tensor, Q_A: Tensor, Q_G: Tensor, samples: int) -> Tensor:
        """Moments of columns. Q_A multiplies the per-sample gradients: patches would be more expensive."""
        basis_G = ops.broadcast_to(Q_G, (samples, *self.shape(Q_G)))
        g = self.batch_matmul_of_transposed(basis_G, g)
        dW = self.batch_matmul_by_transposed(g, p)
        shape = self.shape(dW)
        if len(shape) == 3:
            rows = self.matmul(self.reshape(dW, (-1, shape[2])), Q_A)
            return self.reduce_sum(self.square(self.reshape(rows, shape)), 0)
        basis_A = ops.broadcast_to(Q_A, (samples, *self.shape(Q_A)))
        return self.reduce_sum(self.square(self.batch_matmul(dW, basis_A)), 0)
