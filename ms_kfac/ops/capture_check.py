r"""What a tap adds up to check that a layer's statistics belong to its gradient (Freivalds' check).

With the signs r and s of :mod:`ms_kfac.ops.signs`, :math:`u_{n,t} = a_{n,t}^{\top} s` and
:math:`v_{n,t} = g_{n,t}^{\top} r`,

.. math::
    p = \sum_{n,t} u_{n,t}\, v_{n,t} = r^{\top} \Big(\sum_{n,t} g_{n,t} a_{n,t}^{\top}\Big) s
      = r^{\top} dW\, s

where g is the gradient that arrived, unscaled. It costs :math:`O(N T d)`. If p is not what the optimizer
finds in the gradient that it was given, what was captured is not what the gradient is made of (Freivalds
1977, "Probabilistic Machines Can Use Less Running Time", for products of matrices).
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops


class CaptureCheck(nn.Cell):
    r"""p of a batch, and the size :math:`|u| |v|` that its rounding error is a small multiple of.

    Of a layer with channel groups the size is the sum over its groups.

    Args:
        operators: how the layer's input and output gradient become rows or columns
            (:class:`ms_kfac.capture.layer.LayerOperators`).

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.

    Outputs:
        Two Tensors, scalar float32: p and :math:`|u| |v|`.

    Platforms: CPU, GPU, Ascend (composed of built-in operators). Kernels of statistics have it built in.
    """

    def __init__(self, operators: Any) -> None:
        super().__init__(auto_prefix=False)
        self.projections = operators.projections()
        # Everything, or all but the axis of groups in (N, g, T).
        self.axes = (0, 2) if operators.groups > 1 else ()
        self.reduce_sum = ops.ReduceSum()
        self.square = ops.Square()
        self.sqrt = ops.Sqrt()
        self.cast = ops.Cast()

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        u, v = self.projections(x, self.cast(dout, ms.float32))
        norms = self.reduce_sum(self.square(u), self.axes) * self.reduce_sum(self.square(v), self.axes)
        return self.reduce_sum(u * v), self.reduce_sum(self.sqrt(norms))
