"""Refresh at intervals that change on the way."""

from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
from mindspore import Tensor, ops

from ms_kfac.refresh.policy import RefreshPolicy


class IntervalSchedule(RefreshPolicy):
    """An interval for each stretch of training, counted from the stretch's first step.

    ``IntervalSchedule({0: 1, 50: 10, 500: 100})`` is due at every step up to 49, at 50, 60, ... 490 and at
    500, 600, ... from then on.

    Args:
        intervals: the interval, at least 1, by the first step at which it holds; one of the steps must be 0.

    Raises:
        TypeError: if it is no mapping.
        ValueError: if it is empty, a step or an interval is no such int, or step 0 is missing.
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
