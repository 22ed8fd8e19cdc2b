"""The rules of refresh policies on scripted numbers, written as the papers do, a statistic at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class StaleStatistic:
    """One statistic's interval (Osawa et al. 2020): when it is refreshed, given what it then measures."""

    similarity: float
    interval: int = 1
    before: int = 1
    history: list[np.ndarray] = field(default_factory=list)

    def similar(self, X: np.ndarray, Y: np.ndarray) -> bool:
        """‖X − Y‖ < α ‖Y‖."""
        return bool(np.linalg.norm(X - Y) < self.similarity * np.linalg.norm(Y))

    def refresh(self, X: np.ndarray) -> int:
        """Takes a new value and returns the steps to the next one."""
        zero = np.zeros_like(X)
        last = self.history[-1] if self.history else zero
        second_last = self.history[-2] if len(self.history) > 1 else zero
        self.history.append(np.asarray(X, np.float64))
        interval = self.interval
        if not self.similar(X, last):
            self.interval = max(1, interval // 2)
        elif self.similar(X, second_last):
            self.interval = interval + self.before
        self.before = interval
        return self.interval


def steps_taken(similarity: float, values: Callable[[int], np.ndarray], steps: int) -> list[int]:
    """The steps at which a statistic that measures `values(step)` is refreshed."""
    statistic, due, taken = StaleStatistic(similarity), 0, []
    for step in range(steps):
        if step == due:
            taken.append(step)
            due = step + statistic.refresh(values(step))
    return taken


def trace_decisions(traces: list[float], omega1: float, omega2: float) -> list[str]:
    """Refresh, keep or stop at each look at a layer (Chen et al. 2021); `traces` hold the damping's share."""
    decisions: list[str] = []
    last = 0.0
    for trace in traces:
        change = abs(trace - last) / last if last else np.inf
        if "stop" in decisions or 0 < change < omega2:
            decisions.append("stop")
        elif change > omega1:
            decisions.append("refresh")
            last = trace
        else:
            decisions.append("keep")
    return decisions
