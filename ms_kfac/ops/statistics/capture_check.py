r"""Freivalds' check that a layer's statistics belong to its gradient: the sums that a tap accumulates.

With the signs r and s of :mod:`ms_kfac.ops.statistics.signs`, :math:`u_{n,t} = a_{n,t}^{\top} s` and
:math:`v_{n,t} = g_{n,t}^{\top} r`,

.. math::
    p = \sum_{n,t} u_{n,t}\, v_{n,t} = r^{\top} \Big(\sum_{n,t} g_{n,t} a_{n,t}^{\top}\Big) s
      = r^{\top} dW\, s

where g is the output gradient as delivered, unscaled. The check costs :math:`O(N T d)`. The optimizer
computes :math:`r^{\top} dW\, s` from the gradient that it receives. If the result differs from p, the
captured activations and output gradients do not belong to that gradient (Freivalds 1977, "Probabilistic
Machines Can Use Less Running Time", for products of matrices).
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops


class CaptureCheck(nn.Cell):
    r"""Compute p of a batch, and the magnitude :math:`|u| |v|` that bounds its rounding error.

    The rounding error of p is a small multiple of :math:`|u| |v|`. With channel groups, the magnitude is
    the sum over the groups.

    Args:
        operators: how the layer's input and output gradient become rows or columns
            (:class:`ms_kfac.capture.layer.LayerOperators`).

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.

    Outputs:
        Two Tensors, scalar float32: p and :math:`|u| |v|`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators). The native statistics kernels include this
    check.
    """

    def __init__(self, operators: Any) -> None:
        super().__init__(auto_prefix=False)
        self.projections = operators.projections()
        # All axes, or all but the group axis of (N, g, T).
        self.axes = (0, 2) if operators.groups > 1 else ()
        self.reduce_sum = ops.ReduceSum()
        self.square = ops.Square()
        self.sqrt = ops.Sqrt()
        self.cast = ops.Cast()

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        u, v = self.projections(x, self.cast(dout, ms.float32))
        norms = self.reduce_sum(self.square(u), self.axes) * self.reduce_sum(self.square(v), self.axes)
        return self.reduce_sum(u * v), self.reduce_sum(self.sqrt(norms))
