r"""Diagonal of a second moment, without the full matrix."""

from __future__ import annotations

from mindspore import Tensor, nn, ops


class DiagonalMoment(nn.Cell):
    r"""Sum of squares per coordinate, :math:`\mathrm{diag}\left(\sum_n x_n x_n^{\top}\right)`.

    Args:
        columns: True if the vectors are columns with a leading sample axis (convolutions), False if they are
            rows (dense layers).

    Inputs:
        - **x** (Tensor) - rows :math:`(R, d)`, or columns :math:`(N, d, T)` or :math:`(N, g, d, T)` for g
          groups, float32.

    Outputs:
        Tensor, shape :math:`(d,)` or :math:`(g, d)`, float32: a sum, not a mean.

    Platforms: CPU, GPU, Ascend (composed of Square and ReduceSum).
    """

    def __init__(self, *, columns: bool) -> None:
        super().__init__(auto_prefix=False)
        self.axes = (0, -1) if columns else 0
        self.square = ops.Square()
        self.reduce_sum = ops.ReduceSum()

    def construct(self, x: Tensor) -> Tensor:
        return self.reduce_sum(self.square(x), self.axes)
