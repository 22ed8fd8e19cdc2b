r"""Measurements of the delivered gradients and the weights for the capture check."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.ops.statistics.signs import ROWS, column_signs, signs


class MeasureGradients(nn.Cell):
    r"""Project the gradients and weights of layers on the sign vectors of the capture check.

    .. math::
        q_l = r^{\top} dW_l\, s, \qquad w_l = r^{\top} W_l\, s, \qquad \|dW_l\|_F

    each including the bias (:mod:`ms_kfac.ops.statistics.signs`).

    Args:
        layers: for each layer, its weight and, if it has one, its bias.
        positions: for each layer, the indices of dW and db among the gradients.
        gradients: number of gradients.

    Inputs:
        - **due** (Tensor) - scalar int32; with 0 nothing is measured.
        - **gradients** (tuple[Tensor]) - the delivered gradients, one per parameter.

    Outputs:
        Tensor, float32, shape (layers, 3); zeros if ``due`` is 0.

    Platforms: CPU, GPU (native or fallback), Ascend (fallback of MatMul, ReduceSum and Stack, in a branch).
    """

    def __init__(
        self,
        layers: Sequence[tuple[Parameter, ...]],
        positions: Sequence[tuple[int, ...]],
        gradients: int,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.layers = len(layers)
        self.positions = tuple(positions)
        # Not in the Cell's registry, whose keys are the network's names and could be those of attributes.
        self.__dict__["parameters_of"] = ParameterTuple([parameter for own in layers for parameter in own])
        begins = np.cumsum([0, *(len(own) for own in layers)])
        self.begins = tuple(int(begin) for begin in begins[:-1])
        self.native = is_native("measure_gradients") and self.layers > 0
        if self.native:
            rows = self.layers
            self.kernel = native_operator(
                "measure_gradients",
                shapes=lambda *inputs: [rows, 3],
                layers=rows,
                biases=[len(own) - 1 for own in layers],
                gradients=gradients,
                positions=[position for own in positions for position in own],
            )
        else:
            shapes = [tuple(own[0].shape) for own in layers]
            self.row_signs = tuple(Tensor(signs(ROWS, shape[0]).reshape(1, -1)) for shape in shapes)
            self.column_signs = tuple(Tensor(column_signs(shape).reshape(-1, 1)) for shape in shapes)
            self.bias_signs = tuple(
                Tensor(signs(ROWS, own[-1].size).reshape(tuple(own[-1].shape))) for own in layers
            )
            self.nothing = Tensor(np.zeros((max(self.layers, 1), 3), np.float32))
            self.matmul = ops.MatMul()
            self.reshape = ops.Reshape()
            self.reduce_sum = ops.ReduceSum()
            self.square = ops.Square()
            self.sqrt = ops.Sqrt()
            self.stack = ops.Stack()

    def construct(self, due: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
        if self.native:
            return self.kernel(due, gradients, self.parameters_of)
        measured = self.nothing + 0.0
        if due > 0:
            measured = self.measured(gradients)
        return measured

    def measured(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Measure with the fallback."""
        rows: tuple[Tensor, ...] = ()
        for index in range(self.layers):
            positions, begin = self.positions[index], self.begins[index]
            dW, db = gradients[positions[0]], gradients[positions[-1]]
            W, b = self.parameters_of[begin], self.parameters_of[begin + len(positions) - 1]
            q, w = self.projected(dW, index), self.projected(W, index)
            square = self.reduce_sum(self.square(dW))
            if len(positions) > 1:
                q = q + self.reduce_sum(db * self.bias_signs[index])
                w = w + self.reduce_sum(b * self.bias_signs[index])
                square = square + self.reduce_sum(self.square(db))
            rows = (*rows, self.stack((q, w, self.sqrt(square))))
        return self.stack(rows)

    def projected(self, weight: Tensor, index: int) -> Tensor:
        r""":math:`r^{\top} W s` without the bias, scalar."""
        row_signs = self.row_signs[index]
        rows = self.matmul(row_signs, self.reshape(weight, (row_signs.shape[1], -1)))
        return self.reshape(self.matmul(rows, self.column_signs[index]), ())


def zero_measurements(layers: int) -> Tensor:
    """Zeros to use before the first measurement.

    Args:
        layers: number of layers.

    Returns:
        float32, shape (layers, 3), zeros.
    """
    return Tensor(np.zeros((max(layers, 1), 3)), ms.float32)
