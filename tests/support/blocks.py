"""Curvature blocks that measure what a test writes into them and count what is asked of them."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


class ScriptedBlock(nn.Cell):
    """One statistic a shape; `measured` holds their values, `refreshes` counts the inverse's refreshes."""

    def __init__(self, name: str, shapes: Sequence[tuple[int, ...]], size: int = 1) -> None:
        super().__init__(auto_prefix=False)
        self.layer_name = self.name_prefix = name
        self.size = size
        self.measured = ms.ParameterTuple(
            [self._zeros(f"{name}.measured{i}", shape) for i, shape in enumerate(shapes)]
        )
        self.refreshes = Parameter(Tensor(0, ms.int32), name=f"{name}.refreshes", requires_grad=False)

    @staticmethod
    def _zeros(name: str, shape: tuple[int, ...]) -> Parameter:
        return Parameter(Tensor(np.zeros(shape, np.float32)), name=name, requires_grad=False)

    def measure(self, *values: object) -> None:
        """Sets what the statistics measure."""
        for parameter, value in zip(self.measured, values):
            ops.assign(parameter, Tensor(np.asarray(value, np.float32)))

    def groups_of_statistics(self) -> tuple[tuple[Parameter, ...], ...]:
        return tuple((parameter,) for parameter in self.measured)

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        return (self.measured[group] + 0.0,)

    def estimate_shapes(self, group: int) -> tuple[tuple[int, ...], ...]:
        return (tuple(self.measured[group].shape),)

    def trace(self) -> Tensor:
        return self.measured[0].sum()

    def refresh(self, damping: Tensor) -> bool:
        ops.assign_add(self.refreshes, Tensor(1, ms.int32))
        return True

    def native_refresh(self) -> None:
        return None
