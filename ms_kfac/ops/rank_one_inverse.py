r"""The inverse of a matrix after a rank-one update, from the inverse before it."""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class RankOneInverse(nn.Cell):
    r"""Sherman-Morrison for a symmetric update of a symmetric matrix.

    With :math:`X = P^{-1}`:

    .. math::
        (P + \alpha u u^{\top})^{-1} = X - \frac{(X u)(X u)^{\top}}{1 / \alpha + u^{\top} X u}

    :math:`O(d^2)`: one product of matrix and vector, one outer product. It takes more than it needs to be
    exact: X symmetric positive definite and :math:`\alpha > 0`, where the denominator is at least
    :math:`1 / \alpha` and the result is positive definite again.

    Args:
        weight: :math:`\alpha`, positive.

    Inputs:
        - **inverse** (Tensor) - X, shape :math:`(d, d)`, or :math:`(g, d, d)` for a batch of g, float32.
        - **u** (Tensor) - shape :math:`(d,)` or :math:`(g, d)`, float32.

    Outputs:
        Tensor of the inverse's shape, float32.

    Platforms: CPU, GPU, Ascend (composed of MatMul or BatchMatMul and elementwise operators).
    """

    def __init__(self, weight: float) -> None:
        super().__init__(auto_prefix=False)
        self.reciprocal = 1.0 / weight
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.matmul = ops.MatMul()
        self.batch_matmul = ops.BatchMatMul()
        self.reduce_sum = ops.ReduceSum(keep_dims=True)

    def construct(self, inverse: Tensor, u: Tensor) -> Tensor:
        shape = self.shape(u)
        column = self.reshape(u, (*shape, 1))
        product = self.matmul(inverse, column) if len(shape) == 1 else self.batch_matmul(inverse, column)
        denominator = self.reciprocal + self.reduce_sum(column * product, (-2, -1))
        return inverse - product * (self.reshape(product, (*shape[:-1], 1, shape[-1])) / denominator)
