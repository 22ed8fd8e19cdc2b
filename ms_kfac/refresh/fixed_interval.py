"""Refresh at a fixed interval."""

from __future__ import annotations

from mindspore import Tensor

from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.values import check_count


class FixedInterval(RefreshPolicy):
    """Due at steps 0, interval, 2 interval, ...

    Args:
        interval: number of steps between two refreshes, at least 1.

    Raises:
        TypeError: if ``interval`` is not an int.
        ValueError: if it is below 1 or more than int32 holds.
    """

    def __init__(self, interval: int) -> None:
        super().__init__()
        self.interval = check_count("FixedInterval: interval", interval)

    def construct(self, step: Tensor) -> Tensor:
        return step % self.interval == 0

    def __repr__(self) -> str:
        return f"every {self.interval} steps" if self.interval > 1 else "every step"
