r"""What the blocks share that rest on two factors: A of a layer's inputs and G of its output gradients."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock


class FactoredBlock(CurvatureBlock):
    r"""Base of the blocks with factors A :math:`(d_{in}, d_{in})` and G :math:`(d_{out}, d_{out})`.

    Grouped convolutions have one pair of factors a group, as a leading axis of every Parameter.

    A subclass creates its Parameters and defines :meth:`averages`.

    Args:
        layer: the layer whose Fisher block this is.
        prefix: what the names of the block's Parameters start with.
    """

    def __init__(self, layer: Layer, *, prefix: str) -> None:
        super().__init__(layer, prefix=prefix)
        self.groups = layer.groups
        self.dim_A = layer.input_dimension
        self.dim_G = layer.output_dimension
        self.matmul = ops.MatMul() if self.groups == 1 else ops.BatchMatMul()
        self.reduce_sum = ops.ReduceSum(keep_dims=self.groups > 1)
        self.sum_all = ops.ReduceSum()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.maximum = ops.Maximum()
        self.eye = ops.Eye()
        self.slice = ops.Slice()
        self.reshape = ops.Reshape()

    def matrix_parameter(self, name: str, value: NDArray[Any]) -> Parameter:
        """A Parameter with one such array a group."""
        if self.groups > 1:
            value = np.broadcast_to(value, (self.groups, *value.shape))
        return self.parameter(name, value)

    def element(self, vector: Parameter, index: int) -> Tensor:
        """``vector[index]`` by primitives; compiled, that view may be taken before a kernel has written."""
        return self.reshape(self.slice(vector, (index,), (1,)), ())

    def averages(self) -> tuple[Tensor, Tensor]:
        """A and G; zeros before the first statistics."""
        raise TypeError(f"{type(self).__name__} does not define averages()")

    def factor_traces(self, A: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
        """Traces of A and G, one a group."""
        eye_A = self.eye(self.dim_A, self.dim_A, ms.float32)
        eye_G = self.eye(self.dim_G, self.dim_G, ms.float32)
        return self.reduce_sum(A * eye_A, (-2, -1)), self.reduce_sum(G * eye_G, (-2, -1))

    def product(self, matrix: Tensor) -> Tensor:
        A, G = self.averages()
        return self.matmul(self.matmul(G, matrix), A)

    def trace(self) -> Tensor:
        A, G = self.averages()
        trace_A, trace_G = self.factor_traces(A, G)
        return self.sum_all(trace_A * trace_G)

    def observed(self, group: int) -> tuple[Tensor, ...]:
        A, G = self.averages()
        return (A,) if group == 0 else (G,)

    def dimensions(self) -> str:
        groups = f"{self.groups} x " if self.groups > 1 else ""
        return f"{groups}A {self.dim_A}, G {self.dim_G}"
