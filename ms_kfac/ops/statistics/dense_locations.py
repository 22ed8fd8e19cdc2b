r"""Activations and output gradients of a dense layer as rows, in the expand and the reduce setting.

A dense layer on :math:`(N, d)` has one location per sample. On :math:`(N, T_1, ..., d)` it shares its weights
over :math:`T = \prod_i T_i` locations (Eschenhagen et al. 2023, "Kronecker-Factored Approximate Curvature for
Modern Neural Network Architectures", sections 3.2 and 3.3):

* expand: each location is a separate row;
* reduce: :math:`\bar a_n = \frac1T \sum_t a_{n,t}` and :math:`\hat g_n = \sum_t g_{n,t}`.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class DenseActivations(nn.Cell):
    r"""Layer input as rows, with the homogeneous coordinate of the bias.

    Args:
        bias: True to append a column of ones (Martens & Grosse 2015, section 2.1).
        reduce: True to average over the shared locations, False to stack them.

    Inputs:
        - **x** (Tensor) - shape :math:`(N, ..., d)`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N T, d [+1])` (expand) or :math:`(N, d [+1])` (reduce).
    """

    def __init__(self, *, bias: bool, reduce: bool) -> None:
        super().__init__(auto_prefix=False)
        self.bias = bias
        self.reduce = reduce
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()
        self.ones = ops.Ones()
        self.concat = ops.Concat(axis=1)
        self.reduce_mean = ops.ReduceMean()

    def construct(self, x: Tensor) -> Tensor:
        x = self.cast(x, ms.float32)
        shape = self.shape(x)
        if self.reduce and len(shape) > 2:
            x = self.reduce_mean(self.reshape(x, (shape[0], -1, shape[-1])), 1)
        elif len(shape) != 2:
            x = self.reshape(x, (-1, shape[-1]))
        if self.bias:
            x = self.concat((x, self.ones((self.shape(x)[0], 1), ms.float32)))
        return x


class DenseGradients(nn.Cell):
    r"""Output gradient as rows.

    Args:
        reduce: True to sum over the shared locations, False to stack them.

    Inputs:
        - **dout** (Tensor) - shape :math:`(N, ..., d_{out})`, any float type.

    Outputs:
        Tensor, float32, shape :math:`(N T, d_{out})` (expand) or :math:`(N, d_{out})` (reduce).
    """

    def __init__(self, *, reduce: bool) -> None:
        super().__init__(auto_prefix=False)
        self.reduce = reduce
        self.shape = ops.Shape()
        self.reshape = ops.Reshape()
        self.cast = ops.Cast()
        self.reduce_sum = ops.ReduceSum()

    def construct(self, dout: Tensor) -> Tensor:
        dout = self.cast(dout, ms.float32)
        shape = self.shape(dout)
        if self.reduce and len(shape) > 2:
            return self.reduce_sum(self.reshape(dout, (shape[0], -1, shape[-1])), 1)
        if len(shape) != 2:
            return self.reshape(dout, (-1, shape[-1]))
        return dout
