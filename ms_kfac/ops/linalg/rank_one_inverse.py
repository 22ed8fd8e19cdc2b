r"""Rank-one update of an inverse (Sherman-Morrison formula)."""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class RankOneInverse(nn.Cell):
    r"""Apply the Sherman-Morrison formula to a symmetric rank-one update of a symmetric matrix.

    With :math:`X = P^{-1}`:

    .. math::
        (P + \alpha u u^{\top})^{-1} = X - \frac{(X u)(X u)^{\top}}{1 / \alpha + u^{\top} X u}

    The cost is :math:`O(d^2)`: one matrix-vector product and one outer product. The operator requires X to be
    symmetric positive definite, and :math:`\alpha > 0`. These conditions are stronger than the formula needs.
    They make the denominator at least :math:`1 / \alpha` and the result positive definite.

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
