r"""Schedule of the damping :math:`\lambda`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Union

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_kfac.values import check_numbers

Damping = Union[float, Iterable[float], Tensor, nn.Cell]


class DampingSchedule(nn.Cell):
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
        super().__init__(auto_prefix=False)
        accepted = "a positive number, an iterable of them (one per step) or a LearningRateSchedule-like Cell"
        self.schedule: nn.Cell | None = None
        self.length = 1
        if isinstance(damping, nn.Cell):
            self.schedule = damping
            return
        values = check_numbers("damping", damping, accepted, positive=True)
        self.length = int(values.size)
        self.values = Tensor(values.reshape(-1).astype(np.float32))
        self.gather = ops.Gather()

    def construct(self, step: Tensor) -> Tensor:
        if self.schedule is not None:
            return ops.cast(self.schedule(step), ms.float32).reshape(())
        if self.length == 1:
            return self.values.reshape(())
        index = ops.minimum(step, self.length - 1)
        return self.gather(self.values, index, 0).reshape(())
