"""Times interleaved calls, and summarizes the times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Clock(Protocol):
    """Takes the time of a call."""

    def prepare(self, call: Callable[[], Any]) -> None:
        """Runs a call once and calibrates :meth:`milliseconds` for it."""

    def milliseconds(self, call: Callable[[], Any]) -> float:
        """The time of one call with cold caches."""


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(value) for value in np.percentile(values, [25, 50, 75])]


def alternate(
    calls: Mapping[str, Callable[[], Any]], clock: Clock, *, rounds: int, warm_up: int
) -> dict[str, list[float]]:
    """Times interleaved calls, so that changes of the machine's speed affect all equally.

    Args:
        calls: the calls by name.
        clock: measures the times.
        rounds: number of timings per call.
        warm_up: untimed rounds at the start.

    Returns:
        The milliseconds of each call, one number per round.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm_up):
        for call in calls.values():
            if turn == 0:
                clock.prepare(call)
            clock.milliseconds(call)
    for turn in range(rounds):
        # Every other round is reversed, so that no call always follows the same one.
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(clock.milliseconds(calls[name]))
    return times


def paired_ratios(times: Mapping[str, Sequence[float]], over: str) -> dict[str, list[float]]:
    """Quartiles of the per-round ratios of each call's time to the time of ``over``."""
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
