"""How long a run trains, and the learning rate that follows from it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

# The share of the budget in which the learning rate grows, and where it starts.
WARM_UP = 0.05
LEAST = 0.01


@dataclass(frozen=True)
class Budget:
    """A number of seconds of training, or of steps.

    Attributes:
        amount: how many.
        unit: "s" or "steps".
    """

    amount: float
    unit: str

    def __str__(self) -> str:
        """A label such as "120s"."""
        return f"{self.amount:g}{self.unit}"

    def progress(self, steps: int, seconds: float) -> float:
        """The share of the budget that is spent, from 0 to 1 or more."""
        return (seconds if self.unit == "s" else steps) / self.amount


def rate_factor(progress: float) -> float:
    """The multiplier of the learning rate: a linear warm-up, then half a cosine down to zero.

    It follows the budget, so that every method ends its schedule when its time is over.

    Args:
        progress: the share of the budget that is spent.

    Returns:
        A number from 0 to 1.
    """
    if progress < WARM_UP:
        return max(progress / WARM_UP, LEAST)
    done = min((progress - WARM_UP) / (1 - WARM_UP), 1.0)
    return 0.5 * (1 + math.cos(math.pi * done))


class Clock:
    """Stopwatch of wall seconds and of the process's processor seconds.

    The second tells how much a busy machine slowed a run down.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def __enter__(self) -> Clock:
        """Starts the clock."""
        self._since = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops the clock."""
        self.seconds += time.perf_counter() - self._since[0]
        self.cpu_seconds += time.process_time() - self._since[1]
