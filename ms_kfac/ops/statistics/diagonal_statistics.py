r"""Statistics of a diagonal Fisher: squared gradients per sample, or of the whole batch."""

from __future__ import annotations

from functools import cache
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.statistics.layer_statistics import (
    CORRECTED_EIGENVALUES,
    LayerStatistics,
    StatisticsOperator,
    StatisticsOptions,
)
from ms_kfac.ops.statistics.sample_gradient_squares import SampleGradientSquares


class DiagonalStatistics(LayerStatistics):
    r"""Stage the squared per-sample gradients of a dense layer or a convolution, when the gate is open.

    The weight is N. The gradient of a sample is summed over its locations before the square, for any
    ``sharing`` of the optimizer.

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters the statistics.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32. The batch is staged if the gate requests inputs or gradients.
        - **s** (Parameter) - :math:`([g,] d_{out}, d_{in})`, **record** (Parameter) - written in place.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    beside_factors = CORRECTED_EIGENVALUES

    def __init__(self, operators: Any, options: StatisticsOptions) -> None:
        super().__init__(operators, options)
        self.locations_in = operators.activations(False)
        self.locations_out = operators.gradients(False)
        self.squares = SampleGradientSquares(columns=self.channels_first)

    def construct(self, x: Tensor, dout: Tensor, gate: Parameter, s: Parameter, record: Parameter) -> bool:
        if gate % self.beside_factors > 0:
            samples = self.samples(x)
            p, g = self.locations_in(x), self.scaled(x, self.locations_out(dout))
            self.stage(s, self.squares(p, g, samples), record, 0)
            self.record_pass(x, dout, record, self.vector(float(samples)))
        return True


@cache
def gradient_square() -> GradientSquare:
    """Return the operator shared by all Parameters outside a layer. It is compiled once per shape."""
    return GradientSquare()


class GradientSquare(StatisticsOperator):
    r"""Stage the square of a batch's summed gradient. With the gate closed, the staged weight is 0.

    This operator serves a Parameter outside all layers, for which per-sample gradients are not available. The
    weight is N, so the estimate is :math:`(\sum_n g_n)^2 / N`. Its mean over batches is
    :math:`E[g_n^2] + (N - 1) E[g_n]^2`. That mean is the diagonal of the Fisher if the per-sample gradients
    are independent with mean zero. It exceeds the diagonal of the empirical Fisher while the mean gradient is
    not small.

    Inputs:
        - **samples** (Tensor) - N, scalar float32.
        - **gradient** (Tensor) - gradient of the mean loss, float32.
        - **gate** (Parameter) - scalar int32. The batch counts if the gate requests inputs or gradients.
        - **s** (Parameter) - as many elements as the gradient, **record** (Parameter) - written in place.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    beside_factors = CORRECTED_EIGENVALUES

    def __init__(self) -> None:
        super().__init__()
        self.assign = ops.Assign()
        self.square = ops.Square()
        self.reshape = ops.Reshape()
        self.stack = ops.Stack()

    def construct(
        self, samples: Tensor, gradient: Tensor, gate: Parameter, s: Parameter, record: Parameter
    ) -> bool:
        # No branch: a loop over Parameters with one branch each would take long to compile.
        taken = ops.cast(gate % self.beside_factors > 0, ms.float32)
        self.assign(s, self.square(self.reshape(gradient, s.shape) * samples))
        nothing, one = taken * 0.0, taken * 0.0 + 1.0
        # One pass with a period of one. The capture check has no products here.
        self.assign(record, self.stack((taken, one, nothing, nothing, nothing, samples * taken)))
        return True
