"""Refresh at intervals that change during training."""

from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
from mindspore import Tensor, ops

from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.values import check_count, shown


class IntervalSchedule(RefreshPolicy):
    """One interval per phase of training, counted from the first step of the phase.

    ``IntervalSchedule({0: 1, 50: 10, 500: 100})`` is due at every step up to 49, then at steps 50, 60, ...
    490, then at steps 500, 600, ...

    Args:
        intervals: mapping from the first step of each phase to its interval of at least 1. One of the steps
            must be 0.

    Raises:
        TypeError: if ``intervals`` is not a mapping of ints to ints.
        ValueError: if step 0 is missing, a step is below 0, an interval is below 1, or one of them is more
            than int32 holds.
    """

    def __init__(self, intervals: Mapping[int, int]) -> None:
        super().__init__()
        accepted = "a mapping from first steps, 0 among them, to intervals of at least 1"
        if not isinstance(intervals, Mapping):
            raise TypeError(f"IntervalSchedule: intervals must be {accepted}, got {shown(intervals)}")
        steps = [check_count("IntervalSchedule: a first step in intervals", s, least=0) for s in intervals]
        given = [check_count(f"IntervalSchedule: intervals[{s}]", intervals[s]) for s in intervals]
        if 0 not in steps:
            raise ValueError(f"IntervalSchedule: intervals must be {accepted}, got {shown(intervals)}")
        self.intervals = tuple(sorted(zip(steps, given)))
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
