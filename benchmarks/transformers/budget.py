"""The learning rate over a run, and how many steps a number of seconds is."""

from __future__ import annotations

import math

# The share of a run in which the learning rate grows, and where it starts.
WARM_UP = 0.05
LEAST = 0.01


def steps_in(seconds: float, step_seconds: float, evaluations: int) -> int:
    """The number of steps that take so many seconds on an idle machine.

    Args:
        seconds: the budget.
        step_seconds: seconds per step.
        evaluations: the number of evaluations, which is the least number of steps.

    Returns:
        The nearest number of steps.
    """
    return max(round(seconds / step_seconds), evaluations)


def rate_factor(progress: float) -> float:
    """The multiplier of the learning rate: a linear warm-up, then half a cosine down to zero.

    It follows the budget, so that every method ends its schedule when its time is over.

    Args:
        progress: the share of the steps that are done.

    Returns:
        A number from 0 to 1.
    """
    if progress < WARM_UP:
        return max(progress / WARM_UP, LEAST)
    done = min((progress - WARM_UP) / (1 - WARM_UP), 1.0)
    return 0.5 * (1 + math.cos(math.pi * done))
