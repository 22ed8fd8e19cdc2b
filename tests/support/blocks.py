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
        self.statistic_groups = tuple((index,) for index in range(len(shapes)))
        self.measured = ms.ParameterTuple(
            [self._zeros(f"{name}.measured{i}", shape) for i, shape in enumerate(shapes)]
        )
        self.kept = ms.ParameterTuple([self._ones(f"{name}.kept{i}") for i in range(len(shapes))])
        self.refreshes = Parameter(Tensor(0, ms.int32), name=f"{name}.refreshes", requires_grad=False)

    @staticmethod
    def _zeros(name: str, shape: tuple[int, ...]) -> Parameter:
        return Parameter(Tensor(np.zeros(shape, np.float32)), name=name, requires_grad=False)

    @staticmethod
    def _ones(name: str) -> Parameter:
        return Parameter(Tensor(1.0, ms.float32), name=name, requires_grad=False)

    def measure(self, *values: object) -> None:
        """Sets what the statistics measure."""
        for parameter, value in zip(self.measured, values):
            ops.assign(parameter, Tensor(np.asarray(value, np.float32)))

    def observed(self, group: int) -> tuple[Tensor, ...]:
        return (self.measured[group] + 0.0,)

    def observed_shapes(self, group: int) -> tuple[tuple[int, ...], ...]:
        return (tuple(self.measured[group].shape),)

    def trace(self) -> Tensor:
        return self.measured[0].sum()

    def refresh(self, damping: Tensor) -> bool:
        ops.assign_add(self.refreshes, Tensor(1, ms.int32))
        return True

    def fading(self, separate: bool) -> None:
        return None

    def native_refresh(self) -> None:
        return None

    def decay(self, factor: Tensor) -> bool:
        for group in range(len(self.statistic_groups)):
            self.decay_group(group, factor)
        return True

    def decay_group(self, group: int, factor: Tensor) -> bool:
        ops.assign(self.kept[group], self.kept[group] * factor)
        return True
