"""Refresh at intervals that change during training."""

from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
from mindspore import Tensor, ops

from ms_kfac.refresh.policy import RefreshPolicy


class IntervalSchedule(RefreshPolicy):
    """One interval per phase of training, counted from the first step of the phase.

    ``IntervalSchedule({0: 1, 50: 10, 500: 100})`` is due at every step up to 49, then at steps 50, 60, ...
    490, then at steps 500, 600, ...

    Args:
        intervals: mapping from the first step of each phase to its interval of at least 1. One of the steps
            must be 0.

    Raises:
        TypeError: if ``intervals`` is not a mapping.
        ValueError: if ``intervals`` is empty, step 0 is missing, a step is not an int of at least 0, or an
            interval is not an int of at least 1.
    """

    def __init__(self, intervals: Mapping[int, int]) -> None:
        super().__init__()
        accepted = "a mapping from first steps, 0 among them, to intervals of at least 1"
        if not isinstance(intervals, Mapping):
            raise TypeError(f"IntervalSchedule: intervals must be {accepted}, got {intervals!r}")
        numbers = [*intervals, *intervals.values()]
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        if not whole or 0 not in intervals or min(intervals) < 0 or min(intervals.values()) < 1:
            raise ValueError(f"IntervalSchedule: intervals must be {accepted}, got {intervals!r}")
        self.intervals = tuple(sorted(intervals.items()))
        self.cast = ops.Cast()

    def construct(self, step: Tensor) -> Tensor:
        first, interval = self.intervals[0]
        for later_first, later_interval in self.intervals[1:]:
            reached = self.cast(step >= later_first, ms.int32)
            first = first + reached * (later_first - first)
            interval = interval + reached * (later_interval - interval)
        return (step - first) % interval == 0

    def __repr__(self) -> str:
        return ", ".join(f"every {interval} from step {first}" for first, interval in self.intervals)
