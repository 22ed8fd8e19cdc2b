"""A number as a function of the step: a rate, a decay or the damping."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray


class NumberSchedule(nn.Cell):
    """Read the number of the current step.

    Args:
        numbers: one number for all steps, or one per step, the last of them for all later steps; or a Cell
            that is called with the step, like a ``mindspore.nn.LearningRateSchedule``.
        name: name of the Parameter that holds the numbers. Default: None, they are constants.

    Inputs:
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor, scalar float32.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, numbers: nn.Cell | NDArray[Any], name: str | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.schedule = numbers if isinstance(numbers, nn.Cell) else None
        self.last = 0
        if not isinstance(numbers, nn.Cell):
            values = Tensor(numbers, ms.float32)
            self.last = values.size - 1
            self.values = values if name is None else Parameter(values, name=name, requires_grad=False)
            self.gather = ops.Gather()

    def construct(self, step: Tensor) -> Tensor:
        if self.schedule is not None:
            return ops.cast(self.schedule(step), ms.float32).reshape(())
        if self.last == 0:
            return self.values.reshape(())
        return self.gather(self.values, ops.minimum(step, self.last), 0).reshape(())
