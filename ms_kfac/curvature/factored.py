r"""Base of the blocks with two factors: A of a layer's inputs and G of its output gradients."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.ops.statistics.layer_statistics import GRADIENTS, INPUTS


class FactoredBlock(CurvatureBlock):
    r"""Base of the blocks with factors A :math:`(d_{in}, d_{in})` and G :math:`(d_{out}, d_{out})`.

    A grouped convolution has one pair of factors per group, along a leading axis of every Parameter.

    Args:
        layer: the layer whose Fisher block this is.
        prefix: prefix of the names of the block's Parameters.
    """

    def __init__(self, layer: Layer, *, prefix: str) -> None:
        super().__init__(layer, prefix=prefix)
        self.dim_A = layer.input_dimension
        self.dim_G = layer.output_dimension
        self.matmul = ops.MatMul() if self.groups == 1 else ops.BatchMatMul()
        self.reduce_sum = ops.ReduceSum(keep_dims=self.groups > 1)
        self.sum_all = ops.ReduceSum()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.eye = ops.Eye()

    def add_factors(self) -> None:
        """Declare A with weight 0 and G with weight 1."""
        for weight, (name, dim, gate) in enumerate((("A", self.dim_A, INPUTS), ("G", self.dim_G, GRADIENTS))):
            shape = (*self.leading, dim, dim)
            self.add_statistic(
                name, shape, weight=weight, gate=gate, power=2 * weight, symmetric=True, samples=name == "A"
            )

    def averages(self) -> tuple[Tensor, Tensor]:
        """A and G. Both are zero before the first statistics."""
        return self.estimate(self.A_sum, 0), self.estimate(self.G_sum, 1)

    def factor_traces(self, A: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
        """Traces of A and G, one per group."""
        eye_A = self.eye(self.dim_A, self.dim_A, ms.float32)
        eye_G = self.eye(self.dim_G, self.dim_G, ms.float32)
        return self.reduce_sum(A * eye_A, (-2, -1)), self.reduce_sum(G * eye_G, (-2, -1))

    def multiply(self, matrix: Tensor) -> Tensor:
        A, G = self.averages()
        return self.matmul(self.matmul(G, matrix), A)

    def trace(self) -> Tensor:
        A, G = self.averages()
        trace_A, trace_G = self.factor_traces(A, G)
        return self.sum_all(trace_A * trace_G)

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        A, G = self.averages()
        return (A,) if group == 0 else (G,)

    def dimensions(self) -> str:
        groups = f"{self.groups} x " if self.groups > 1 else ""
        return f"{groups}A {self.dim_A}, G {self.dim_G}"
