"""Refresh at an interval, more often during a warm-up."""

from __future__ import annotations

from mindspore import Tensor, ops

from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.values import check_count

# Last steps of the two phases of the warm-up: every step is due, then every fifth step.
EVERY_STEP, EVERY_FIFTH = 10, 50


class WarmUpInterval(RefreshPolicy):
    """Due at steps 0, interval, 2 interval, ..., and more often in the first 50 steps.

    Every step is due up to step 10, and every fifth step up to step 50. Without the warm-up, the inverses of
    the first batch would be used for a whole interval, while the gradients change by orders of magnitude.

    An int given as ``factor_interval`` or ``inverse_interval`` means this policy.
    :class:`ms_kfac.FixedInterval` has no warm-up, and :class:`ms_kfac.IntervalSchedule` allows other
    warm-ups.

    Args:
        interval: number of steps between two refreshes after the warm-up, at least 1.

    Raises:
        TypeError: if ``interval`` is not an int.
        ValueError: if it is below 1 or more than int32 holds.
    """

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = check_count("WarmUpInterval: interval", interval)
        self.middle = min(self.interval, 5)
        self.every_step, self.every_fifth = EVERY_STEP, EVERY_FIFTH
        due = {*range(EVERY_STEP + 1), *range(0, EVERY_FIFTH + 1, self.middle)}
        self.warm_up_refreshes = sum(step % self.interval != 0 for step in due)
        self.either = ops.LogicalOr()
        self.both = ops.LogicalAnd()

    def construct(self, step: Tensor) -> Tensor:
        early = self.both(step <= self.every_fifth, step % self.middle == 0)
        early = self.either(early, step <= self.every_step)
        return self.either(early, step % self.interval == 0)

    def __repr__(self) -> str:
        if self.interval == 1:
            return "every step"
        middle = f", every {self.middle} up to step {EVERY_FIFTH}" if self.interval > self.middle else ""
        return f"every step up to step {EVERY_STEP}{middle}, then every {self.interval} steps"
