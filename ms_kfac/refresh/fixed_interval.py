"""Refresh at a fixed interval."""

from __future__ import annotations

from mindspore import Tensor

from ms_kfac.refresh.policy import RefreshPolicy


class FixedInterval(RefreshPolicy):
    """Due at steps 0, interval, 2 interval, ...

    Args:
        interval: number of steps between two refreshes, at least 1.

    Raises:
        ValueError: if ``interval`` is not a positive int.
    """

    def __init__(self, interval: int) -> None:
        super().__init__()
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ValueError(f"FixedInterval: interval must be an int of at least 1, got {interval!r}")
        self.interval = interval

    def construct(self, step: Tensor) -> Tensor:
        return step % self.interval == 0

    def __repr__(self) -> str:
        return f"every {self.interval} steps" if self.interval > 1 else "every step"
