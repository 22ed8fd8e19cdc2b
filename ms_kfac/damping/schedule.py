r"""Schedule of the damping :math:`\lambda`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union

import numpy as np
from mindspore import Tensor, nn
from numpy.typing import NDArray

from ms_kfac.ops.step.number_schedule import NumberSchedule

Damping = Union[float, Iterable[float], Tensor, nn.Cell]


class DampingSchedule(NumberSchedule):
    r""":math:`\lambda` as a function of the step.

    Args:
        damping: a positive number, an iterable or 1-D Tensor of positive numbers, or a Cell. An iterable or
            Tensor has one number per step, and the last number is used for all later steps. A Cell is called
            with the step, like a ``mindspore.nn.LearningRateSchedule``.

    Raises:
        TypeError: if ``damping`` has another type.
        ValueError: if a number is not positive and finite, or the iterable is empty.

    Inputs:
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor, scalar float32.
    """

    def __init__(self, damping: Damping) -> None:
        super().__init__(_checked(damping))


def _checked(damping: Any) -> nn.Cell | NDArray[Any]:
    """The damping as a Cell, or as an array of one number per step."""
    accepted = "a positive number, an iterable of them (one per step) or a LearningRateSchedule-like Cell"
    if isinstance(damping, nn.Cell):
        return damping
    if (
        isinstance(damping, bool)
        or not isinstance(damping, (int, float, Tensor, Iterable))
        or isinstance(damping, (str, dict))
    ):
        raise TypeError(f"damping must be {accepted}, got {damping!r}")
    if isinstance(damping, Tensor):
        values = damping.asnumpy()
    elif isinstance(damping, (int, float)):
        values = np.asarray(damping)
    else:
        values = np.asarray(list(damping))
    if values.ndim > 1 or values.size == 0 or values.dtype.kind not in "iuf":
        raise ValueError(f"damping must be {accepted}, got {damping!r}")
    if not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"damping must be positive and finite, got {damping!r}")
    return values.reshape(-1).astype(np.float32)
