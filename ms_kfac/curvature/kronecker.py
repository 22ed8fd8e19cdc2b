r"""K-FAC's block: :math:`F \approx A \otimes G`, A of the layer's inputs and G of its output gradients.

For row-major :math:`dW \in \mathbb{R}^{d_{out} \times d_{in}}` with independent a and g,
:math:`E[\mathrm{vec}(g a^{\top}) \mathrm{vec}(g a^{\top})^{\top}] = E[g g^{\top} \otimes a a^{\top}] \approx G \otimes A`, and the damped inverse acts as

.. math::
    U = \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1} dW \left(A + \pi \sqrt\lambda I\right)^{-1}

(Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", sections 4.2 and 6.3; for
convolutions Grosse & Martens 2016, "A Kronecker-factored Approximate Fisher Matrix for Convolution Layers", section 3).
"""

from __future__ import annotations

from typing import Dict

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.damping import pi_split
from ms_kfac.ops.damped_inverse import DampedInverse
from ms_kfac.ops.kronecker_statistics import KroneckerStatistics


class KroneckerBlock(CurvatureBlock):
    """Kronecker-factored Fisher block of a dense layer or a convolution.

    Grouped convolutions have one pair of factors a group, as a leading axis of every Parameter here.

    Args:
        layer: the layer.
        prefix: what the names of the Parameters start with.
        sharing: "expand" or "reduce".
        mean_reduction: whether the loss averages over the batch.
        gradient_scale: what undoes the loss scale in ``dout``.

    Note:
        Until a layer has been reached by a backward pass its inverses are the identity over one plus nothing: its gradient passes unchanged.
    """

    kind = "Kronecker"

    def __init__(
        self, layer: Layer, *, prefix: str, sharing: str, mean_reduction: bool, gradient_scale: float
    ) -> None:
        super().__init__(layer)
        self.groups = layer.groups
        self.dim_A = layer.input_dimension
        self.dim_G = layer.output_dimension
        reduce = sharing == "reduce"
        self.statistics: nn.Cell = KroneckerStatistics(
            layer.activations(reduce),
            layer.gradients(reduce),
            layer.second_moment(),
            gradient_scale=gradient_scale,
            mean_reduction=mean_reduction,
            reduce=reduce,
            channels_first=layer.channels_first,
        )
        name = f"{prefix}.{layer.name}"
        self.A_sum = self._matrix(f"{name}.A_sum", np.zeros, self.dim_A)
        self.G_sum = self._matrix(f"{name}.G_sum", np.zeros, self.dim_G)
        self.A_count = Parameter(Tensor(0.0, ms.float32), name=f"{name}.A_count", requires_grad=False)
        self.G_count = Parameter(Tensor(0.0, ms.float32), name=f"{name}.G_count", requires_grad=False)
        self.A_inverse = self._matrix(f"{name}.A_inverse", np.eye, self.dim_A)
        self.G_inverse = self._matrix(f"{name}.G_inverse", np.eye, self.dim_G)
        self.state = (self.A_sum, self.A_count, self.G_sum, self.G_count)
        self.damped_inverse = DampedInverse()
        self.matmul = ops.MatMul() if self.groups == 1 else ops.BatchMatMul()
        self.assign = ops.Assign()
        self.reduce_sum = ops.ReduceSum(keep_dims=self.groups > 1)

    def _matrix(self, name: str, fill: object, dimension: int) -> Parameter:
        value = np.eye(dimension, dtype=np.float32) if fill is np.eye else np.zeros((dimension, dimension), np.float32)
        if self.groups > 1:
            value = np.ascontiguousarray(np.broadcast_to(value, (self.groups, dimension, dimension)))
        return Parameter(Tensor(value), name=name, requires_grad=False)

    def refresh(self, damping: Tensor) -> bool:
        seen = self.A_count > 0
        A = self.A_sum / ops.select(seen, self.A_count, 1.0)
        G = self.G_sum / ops.select(seen, self.G_count, 1.0)
        damping_A, damping_G = pi_split(self.trace(A), self.dim_A, self.trace(G), self.dim_G, damping)
        self.assign(self.A_inverse, self.damped_inverse(A, ops.select(seen, damping_A, ops.ones_like(damping_A))))
        self.assign(self.G_inverse, self.damped_inverse(G, ops.select(seen, damping_G, ops.ones_like(damping_G))))
        return True

    def trace(self, factor: Tensor) -> Tensor:
        """Trace of a factor: a scalar, or shape (g, 1, 1) for g groups."""
        dimension = factor.shape[-1]
        diagonal = factor * ops.eye(dimension, dimension, ms.float32)
        return self.reduce_sum(diagonal, (-2, -1))

    def decay(self, factor: Tensor) -> bool:
        for parameter in self.state:
            self.assign(parameter, parameter * factor)
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.matmul(self.matmul(self.G_inverse, matrix), self.A_inverse)

    def factors(self) -> Dict[str, np.ndarray]:
        counts = {"A": float(self.A_count.asnumpy()), "G": float(self.G_count.asnumpy())}
        sums = {"A": self.A_sum.asnumpy(), "G": self.G_sum.asnumpy()}
        return {key: sums[key] / counts[key] if counts[key] > 0 else sums[key].copy() for key in sums}

    def dimensions(self) -> str:
        groups = f"{self.groups} x " if self.groups > 1 else ""
        return f"{groups}A {self.dim_A}, G {self.dim_G}"
