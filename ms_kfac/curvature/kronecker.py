r"""K-FAC's block: :math:`F \approx A \otimes G`, A of the layer's inputs and G of its output gradients.

For row-major :math:`dW \in \mathbb{R}^{d_{out} \times d_{in}}` with independent a and g,
:math:`E[\mathrm{vec}(g a^{\top}) \mathrm{vec}(g a^{\top})^{\top}] = E[g g^{\top} \otimes a a^{\top}] \approx
G \otimes A`, and the damped inverse acts as

.. math::
    U = \left(G + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1} dW \left(A + \pi \sqrt\lambda I\right)^{-1}

(Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", sections
4.2 and 6.3; for convolutions Grosse & Martens 2016, "A Kronecker-factored Approximate Fisher Matrix for
Convolution Layers", section 3).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer, LayerOperators
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.damping import pi_split
from ms_kfac.ops.damped_inverse import DampedInverse
from ms_kfac.ops.kronecker_statistics import KroneckerStatistics


@cache
def kronecker_statistics(
    operators: LayerOperators, sharing: str, mean_reduction: bool, gradient_scale: float
) -> KroneckerStatistics:
    """The statistics operator of all layers of one geometry.

    Args:
        operators: how the layer's inputs and output gradients become rows or columns.
        sharing: "expand" or "reduce".
        mean_reduction: whether the loss averages over the batch.
        gradient_scale: what undoes the loss scale in ``dout``.

    Returns:
        The operator.
    """
    reduce = sharing == "reduce"
    return KroneckerStatistics(
        operators.activations(reduce),
        operators.gradients(reduce),
        operators.second_moment(),
        gradient_scale=gradient_scale,
        mean_reduction=mean_reduction,
        reduce=reduce,
        channels_first=operators.channels_first,
    )


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
        Until a backward pass has reached the layer its inverses are identities: its gradient passes
        unchanged.
    """

    kind = "Kronecker"

    # Below any weight that a moving average leaves; keeps 0 / 0 at 0 before the first statistics.
    _SMALLEST_COUNT = 1e-30

    def __init__(
        self, layer: Layer, *, prefix: str, sharing: str, mean_reduction: bool, gradient_scale: float
    ) -> None:
        super().__init__(layer)
        self.groups = layer.groups
        self.dim_A = layer.input_dimension
        self.dim_G = layer.output_dimension
        self.statistics = kronecker_statistics(layer.operators, sharing, mean_reduction, gradient_scale)
        name = f"{prefix}.{layer.name}"
        self.A_sum = self._matrix(f"{name}.A_sum", np.zeros((self.dim_A, self.dim_A)))
        self.G_sum = self._matrix(f"{name}.G_sum", np.zeros((self.dim_G, self.dim_G)))
        self.A_count = Parameter(Tensor(0.0, ms.float32), name=f"{name}.A_count", requires_grad=False)
        self.G_count = Parameter(Tensor(0.0, ms.float32), name=f"{name}.G_count", requires_grad=False)
        self.A_inverse = self._matrix(f"{name}.A_inverse", np.eye(self.dim_A))
        self.G_inverse = self._matrix(f"{name}.G_inverse", np.eye(self.dim_G))
        self.state = (self.A_sum, self.A_count, self.G_sum, self.G_count)
        self.damped_inverse = DampedInverse()
        self.matmul = ops.MatMul() if self.groups == 1 else ops.BatchMatMul()
        self.assign = ops.Assign()
        self.reduce_sum = ops.ReduceSum(keep_dims=self.groups > 1)
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.maximum = ops.Maximum()
        self.eye = ops.Eye()
        self.smallest_count = self._SMALLEST_COUNT

    def _matrix(self, name: str, value: NDArray[Any]) -> Parameter:
        if self.groups > 1:
            value = np.broadcast_to(value, (self.groups, *value.shape))
        return Parameter(Tensor(np.ascontiguousarray(value, np.float32)), name=name, requires_grad=False)

    def refresh(self, damping: Tensor) -> bool:
        unseen = self.cast(self.equal(self.A_count, 0.0), ms.float32)
        A = self.A_sum / self.maximum(self.A_count, self.smallest_count)
        G = self.G_sum / self.maximum(self.G_count, self.smallest_count)
        eye_A = self.eye(self.dim_A, self.dim_A, ms.float32)
        eye_G = self.eye(self.dim_G, self.dim_G, ms.float32)
        trace_A = self.reduce_sum(A * eye_A, (-2, -1))
        trace_G = self.reduce_sum(G * eye_G, (-2, -1))
        damping_A, damping_G = pi_split(trace_A, self.dim_A, trace_G, self.dim_G, damping)
        # A layer that no backward pass has reached yet has zero factors: "damped" to the identity.
        self.assign(self.A_inverse, self.damped_inverse(A, damping_A + unseen * (1.0 - damping_A)))
        self.assign(self.G_inverse, self.damped_inverse(G, damping_G + unseen * (1.0 - damping_G)))
        return True

    def decay(self, factor: Tensor) -> bool:
        for parameter in self.state:
            self.assign(parameter, parameter * factor)
        return True

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.matmul(self.matmul(self.G_inverse, matrix), self.A_inverse)

    def factors(self) -> dict[str, NDArray[np.float32]]:
        counts = {"A": float(self.A_count.asnumpy()), "G": float(self.G_count.asnumpy())}
        sums = {"A": self.A_sum.asnumpy(), "G": self.G_sum.asnumpy()}
        return {key: sums[key] / counts[key] if counts[key] > 0 else sums[key].copy() for key in sums}

    def dimensions(self) -> str:
        groups = f"{self.groups} x " if self.groups > 1 else ""
        return f"{groups}A {self.dim_A}, G {self.dim_G}"
