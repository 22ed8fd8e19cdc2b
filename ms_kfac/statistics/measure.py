r"""Measurements of the delivered gradients and the weights for the capture check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.ops.statistics.signs import ROWS, column_signs, signs
from ms_kfac.ops.step.gradient_views import GradientViews
from ms_kfac.ops.step.parameter_rows import LayerParameter, parameter_of


class MeasureGradients(nn.Cell):
    r"""Project the gradients and weights of layers on the sign vectors of the capture check.

    .. math::
        q_l = r^{\top} dW_l\, s, \qquad w_l = r^{\top} W_l\, s, \qquad \|dW_l\|_F

    each including the bias (:mod:`ms_kfac.ops.statistics.signs`).

    Args:
        layers: for each layer, its weight and, if it has one, its bias: Parameters, or rows of Parameters.
        positions: for each layer, the indices of dW and db among the gradients.
        gradients: number of gradients, with views.
        views: appends the views to the gradients, for this operator alone; None if there are none. Default:
            None.

    Inputs:
        - **due** (Tensor) - scalar int32; with 0 nothing is measured.
        - **gradients** (tuple[Tensor]) - the delivered gradients, one per parameter.

    Outputs:
        Tensor, float32, shape (layers, 3); zeros if ``due`` is 0.

    Platforms: CPU, GPU (native or fallback), Ascend (fallback of MatMul, ReduceSum and Stack, in a branch).
    """

    def __init__(
        self,
        layers: Sequence[tuple[LayerParameter, ...]],
        positions: Sequence[tuple[int, ...]],
        gradients: int,
        views: GradientViews | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.layers = len(layers)
        self.positions = tuple(positions)
        weights = [weight for own in layers for weight in own]
        owners = list({id(parameter_of(weight)): parameter_of(weight) for weight in weights}.values())
        # Not in the Cell's registry, whose keys are the network's names and could be those of attributes.
        self.__dict__["parameters"] = ParameterTuple(owners)
        self.weight_views = GradientViews(owners, [(weight,) for weight in weights])
        self.has_views = views is not None and views.changes
        self.views: Any = views
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
        if self.has_views:
            gradients = self.views(gradients)
        if self.native:
            return self.kernel(due, gradients, self.weights())
        measured = self.nothing + 0.0
        if due > 0:
            measured = self.measured(gradients)
        return measured

    def measured(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Measure with the fallback."""
        rows: tuple[Tensor, ...] = ()
        weights = self.weights()
        for index in range(self.layers):
            positions, begin = self.positions[index], self.begins[index]
            dW, db = gradients[positions[0]], gradients[positions[-1]]
            W, b = weights[begin], weights[begin + len(positions) - 1]
            q, w = self.projected(dW, index), self.projected(W, index)
            square = self.reduce_sum(self.square(dW))
            if len(positions) > 1:
                q = q + self.reduce_sum(db * self.bias_signs[index])
                w = w + self.reduce_sum(b * self.bias_signs[index])
                square = square + self.reduce_sum(self.square(db))
            rows = (*rows, self.stack((q, w, self.sqrt(square))))
        return self.stack(rows)

    def weights(self) -> tuple[Tensor, ...]:
        """Weight and bias of each layer, float32."""
        if not self.weight_views.changes:
            return self.parameters
        viewed = self.weight_views(self.parameters)
        found: tuple[Tensor, ...] = ()
        for position in self.weight_views.positions:
            found = (*found, viewed[position[0]])
        return found

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
