"""Times of calls that take turns, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Clock(Protocol):
    """Takes the time of a call."""

    def prepare(self, call: Callable[[], Any]) -> None:
        """Runs a call once and learns what :meth:`milliseconds` must know of it."""

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """The time of one call with nothing of its data in the caches."""


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(value) for value in np.percentile(values, [25, 50, 75])]


def alternate(
    calls: Mapping[str, Callable[[], Any]], clock: Clock, *, rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """Times calls in turn, so that a change of the machine's speed meets all alike.

    Args:
        calls: by name.
        clock: takes the times.
        rounds: how often each is timed.
        warm_up: rounds before these.

    Returns:
        The milliseconds of each, a number a round.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm_up):
        for call in calls.values():
            if turn == 0:
                clock.prepare(call)
            clock.milliseconds(call)
    for turn in range(rounds):
        # Every other round goes backwards: nobody always comes after the same neighbour.
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(clock.milliseconds(calls[name]))
    return times


def paired_ratios(times: Mapping[str, Sequence[float]], over: str) -> dict[str, list[float]]:
    """Quartiles of the ratios, round by round, of each one's time over that of ``over``."""
    base = np.asarray(times[over])
    return {
        name: quartiles((np.asarray(values) / base).tolist())
        for name, values in times.items()
        if name != over
    }


def summary(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Raw times and quartiles, in milliseconds."""
    return {
        name: {"quartiles_ms": quartiles(values), "raw_ms": [round(value, 6) for value in values]}
        for name, values in times.items()
    }
