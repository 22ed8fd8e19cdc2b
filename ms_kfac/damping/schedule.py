r"""Schedule of the damping :math:`\lambda`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

from mindspore import Tensor, nn

from ms_kfac.ops.step.number_schedule import NumberSchedule
from ms_kfac.values import check_numbers

Damping = Union[float, Iterable[float], Tensor, nn.Cell]


class DampingSchedule(NumberSchedule):
    r""":math:`\lambda` as a function of the step.

    Args:
        damping: a positive number, an iterable or 1-D Tensor of positive numbers, or a Cell. An iterable or
            Tensor has one number per step, and the last number is used for all later steps. A Cell is called
            with the step, like a ``mindspore.nn.LearningRateSchedule``.

    Raises:
        TypeError: if ``damping`` has another type.
        ValueError: if a number is not positive and finite in float32, or the iterable is empty.

    Inputs:
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor, scalar float32.
    """

    def __init__(self, damping: Damping) -> None:
        accepted = "a positive number, an iterable of them (one per step) or a LearningRateSchedule-like Cell"
        if isinstance(damping, nn.Cell):
            super().__init__(damping)
        else:
            super().__init__(check_numbers("damping", damping, accepted, positive=True).reshape(-1))
