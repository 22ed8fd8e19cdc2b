"""What every approximation of a layer's Fisher block offers to the optimizer."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.ops.statistics import StatisticsOperator
from ms_kfac.ops.weight_matrix import WeightMatrix


class CurvatureBlock(nn.Cell):
    """Base of the curvature blocks: statistics -> factors -> inverse -> precondition.

    A subclass creates its statistics and inverses as Parameters, hands a tap the operator that fills them,
    and defines the four methods below. All but :meth:`factors` run inside the compiled step.

    Args:
        layer: the layer whose Fisher block this is.

    Attributes:
        statistics: the operator that a tap calls with x, dout, the gate and ``state``.
        state: the four Parameters that ``statistics`` writes in place (a tap carries exactly four).
    """

    kind = "abstract"
    statistics: StatisticsOperator
    state: tuple[Parameter, Parameter, Parameter, Parameter]

    def __init__(self, layer: Layer) -> None:
        super().__init__(auto_prefix=False)
        self.layer_name = layer.name
        self.weight_matrix = WeightMatrix(
            layer.weight.shape, bias=layer.bias is not None, groups=layer.groups
        )

    def refresh(self, damping: Tensor) -> bool:
        """Recompute what :meth:`precondition` multiplies with from the present statistics."""
        raise TypeError(f"{type(self).__name__} does not define refresh(damping)")

    def decay(self, factor: Tensor) -> bool:
        """Multiply sums and weights of the statistics by the same factor."""
        raise TypeError(f"{type(self).__name__} does not define decay(factor)")

    def precondition(self, matrix: Tensor) -> Tensor:
        """Multiply a gradient matrix by the inverse of the damped block."""
        raise TypeError(f"{type(self).__name__} does not define precondition(matrix)")

    def factors(self) -> dict[str, NDArray[np.float32]]:
        """Undamped moving-averaged statistics under their names in the literature, float32."""
        raise TypeError(f"{type(self).__name__} does not define factors()")

    def dimensions(self) -> str:
        """The factors' sizes, for the summary."""
        raise TypeError(f"{type(self).__name__} does not define dimensions()")

    def bytes(self) -> int:
        """Memory that statistics and inverses take."""
        parameters = self.parameters_dict().values()
        return sum(int(np.prod(parameter.shape)) * 4 for parameter in parameters)
