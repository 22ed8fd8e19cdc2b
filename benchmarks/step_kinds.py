"""Kinds of training steps, and mean step times computed from the medians of the kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def kind_of_step(step: int, intervals: tuple[int, int]) -> str:
    """The kind of a step.

    Args:
        step: its index.
        intervals: intervals of statistics and inverses; (0, 0) for an optimizer without refreshes.

    Returns:
        "ordinary", "statistics" or "inverses"; a step with inverses also takes statistics.
    """
    if not intervals[0] or step % intervals[0]:
        return "ordinary"
    return "statistics" if step % intervals[1] else "inverses"


def seconds_by_kind(seconds: Sequence[float], kinds: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The seconds of the steps, by kind."""
    taken = np.asarray(seconds, np.float64)
    return {kind: taken[[own == kind for own in kinds]] for kind in sorted(set(kinds))}


def mean_of_medians(by_kind: Mapping[str, NDArray[np.float64]]) -> float:
    """The mean step time if each step takes the median of its kind."""
    total = sum(float(np.median(chosen)) * len(chosen) for chosen in by_kind.values())
    return total / sum(len(chosen) for chosen in by_kind.values())


def mean_over_a_period(
    by_kind: Mapping[str, NDArray[np.float64]], intervals: tuple[int, int]
) -> float | None:
    """The mean step time over one inverse interval, if each step takes the median of its kind.

    Args:
        by_kind: seconds of the measured steps, by kind.
        intervals: intervals of statistics and inverses.

    Returns:
        The mean; None if a kind in the interval was not measured.
    """
    kinds = [kind_of_step(step, intervals) for step in range(max(intervals[1], 1))]
    if any(kind not in by_kind for kind in kinds):
        return None
    return float(np.mean([np.median(by_kind[kind]) for kind in kinds]))
