r"""Project a layer's input and output gradient onto the random signs of the capture check.

Each operator returns u and v with :math:`\sum u v = r^{\top} dW\, s` (:mod:`ms_kfac.ops.statistics.signs`).
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops.primitive import constexpr

from ms_kfac.ops.statistics.signs import ROWS, column_signs, signs


class FactorProjections(nn.Cell):
    r"""Projections of a dense layer or a convolution.

    .. math::
        u_{n,t} = a_{n,t}^{\top} s, \qquad v_{n,t} = g_{n,t}^{\top} r

    Args:
        activations: converts the layer's input to rows, or to columns of patches, one per location.
        gradients: converts the output gradient to the same layout.
        bias: whether rows or columns end with a one.
        columns: True for columns :math:`(N, [g,] d, T)`, False for rows :math:`(R, d)`.
        taps: number of kernel elements of a convolution; 1 for a dense layer.

    Inputs:
        - **x** (Tensor), **dout** (Tensor) - the layer's input and output gradient.

    Outputs:
        Two Tensors of equal shape, u and v.
    """

    def __init__(
        self, activations: nn.Cell, gradients: nn.Cell, *, bias: bool, columns: bool, taps: int
    ) -> None:
        super().__init__(auto_prefix=False)
        self.activations, self.gradients = activations, gradients
        self.columns = columns
        self.bias, self.taps = bias, taps
        self.input_signs = constexpr(fn=self._input_signs, name="input_signs", reuse_result=False)
        self.output_signs = constexpr(fn=self._output_signs, name="output_signs", reuse_result=False)
        self.reduce_sum = ops.ReduceSum()
        self.matmul = ops.MatMul()
        self.shape = ops.Shape()

    def _input_signs(self, features: int) -> Tensor:
        _refuse_unknown(features)
        taken = features - int(self.bias)
        found = column_signs((1, taken // self.taps, self.taps))
        if self.bias:
            found = np.append(found, np.float32(1))
        return Tensor(found.reshape(-1, 1))

    def _output_signs(self, shape: tuple[int, ...]) -> Tensor:
        _refuse_unknown(*shape)
        return Tensor(signs(ROWS, int(np.prod(shape))).reshape(*shape, 1))

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        a, g = self.activations(x), self.gradients(dout)
        if self.columns:
            features, outputs = self.shape(a)[-2], self.shape(g)[1:-1]
            u = self.reduce_sum(a * self.input_signs(features), -2)
            return u, self.reduce_sum(g * self.output_signs(outputs), -2)
        u = self.matmul(a, self.input_signs(self.shape(a)[-1]))
        return u, self.matmul(g, self.output_signs(self.shape(g)[1:]))


class EmbeddingProjections(nn.Cell):
    """Projections of an embedding table: u is the row sign of each id, v projects its output gradient.

    Args:
        vocabulary: number of rows of the table.
        gradients: converts the output gradient to rows.
        padding: an id without gradient; -1 for none. Default: -1.

    Inputs:
        - **x** (Tensor) - ids, **dout** (Tensor) - the output gradient.

    Outputs:
        Two Tensors of shape (ids,), u and v.
    """

    def __init__(self, vocabulary: int, gradients: nn.Cell, *, padding: int = -1) -> None:
        super().__init__(auto_prefix=False)
        self.vocabulary = vocabulary
        self.padding = padding
        self.gradients = gradients
        self.row_signs = Tensor(signs(ROWS, vocabulary))
        self.column_signs = constexpr(fn=_column, name="column_signs", reuse_result=False)
        self.cast = ops.Cast()
        self.gather = ops.Gather()
        self.logical_and = ops.LogicalAnd()
        self.matmul = ops.MatMul()
        self.reshape = ops.Reshape()
        self.shape = ops.Shape()

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        ids = self.reshape(self.cast(x, ms.int32), (-1,))
        known = self.logical_and(ids >= 0, ids < self.vocabulary)
        if self.padding >= 0:
            known = self.logical_and(known, ids != self.padding)
        # The kernel rejects ids outside of the table. They do not contribute to the gradient.
        u = self.gather(self.row_signs, ids * self.cast(known, ms.int32), 0) * self.cast(known, ms.float32)
        g = self.gradients(dout)
        return u, self.reshape(self.matmul(g, self.column_signs(self.shape(g)[1])), (-1,))


class NormalizationProjections(nn.Cell):
    r"""Projections of a normalization layer: :math:`u = w_c \hat x_c + b_c` and v = g.

    :math:`w_c` and :math:`b_c` are the signs of gamma and beta; :math:`b_c` is 0 without beta.

    Args:
        activations: converts the layer's input to normalized values.
        gradients: converts the output gradient to the same layout.
        shape: shape of gamma.
        bias: whether the layer has beta.
        columns: True for the layout :math:`(N, C, T)`, False for :math:`(N, T, C)`.

    Inputs:
        - **x** (Tensor), **dout** (Tensor) - the layer's input and output gradient.

    Outputs:
        Two Tensors of that layout, u and v.
    """

    def __init__(
        self,
        activations: nn.Cell,
        gradients: nn.Cell,
        shape: tuple[int, ...],
        *,
        bias: bool,
        columns: bool,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.activations, self.gradients = activations, gradients
        channels = int(np.prod(shape))
        layout = (channels, 1) if columns else (channels,)
        weights: Any = np.outer(signs(ROWS, shape[0]), column_signs(shape)).reshape(layout)
        self.weight_signs = Tensor(weights)
        self.bias_signs = Tensor(signs(ROWS, channels).reshape(layout) * np.float32(bias))

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return self.activations(x) * self.weight_signs + self.bias_signs, self.gradients(dout)


def _column(count: int) -> Tensor:
    _refuse_unknown(count)
    return Tensor(column_signs((1, count)).reshape(-1, 1))


def _refuse_unknown(*sizes: int | None) -> None:
    if None in sizes:
        raise ValueError(
            "set_inputs: a layer whose statistics run the fallback (summary() tells which) needs inputs "
            "without None. Leave set_inputs out, so that MindSpore compiles a step for each shape, or skip= "
            "the layer"
        )
