"""A number as a function of the step: a rate, a decay, the damping or the KL clip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from ms_kfac.values import check_numbers

PositiveNumbers = Union[float, Iterable[float], Tensor, nn.Cell]


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


def positive_schedule(name: str, value: PositiveNumbers) -> NumberSchedule:
    """Create the schedule of an option that takes positive numbers.

    Args:
        name: the option's name.
        value: a positive number, an iterable or 1-D Tensor of positive numbers, or a Cell. An iterable or
            Tensor has one number per step, and the last number is used for all later steps. A Cell is called
            with the step, like a ``mindspore.nn.LearningRateSchedule``.

    Returns:
        The schedule.

    Raises:
        TypeError: if ``value`` has another type.
        ValueError: if a number is not positive and finite in float32, or the iterable is empty.
    """
    if isinstance(value, nn.Cell):
        return NumberSchedule(value)
    accepted = "a positive number, an iterable of them (one per step) or a LearningRateSchedule-like Cell"
    return NumberSchedule(check_numbers(name, value, accepted, positive=True).reshape(-1))
