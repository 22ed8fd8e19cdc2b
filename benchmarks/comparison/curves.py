"""Curves of runs: read from the log, ranked, and the seconds until they reach a level."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.comparison.tasks import LOSS, METRIC, TRAIN_LOSS, Level, Task
from model_zoo.common.options.networks import lower_is_better

Row = Mapping[str, str]
Curve = Sequence[tuple[float, float]]


def lower_is_better_at(task: Task, place: int) -> bool:
    """Whether a smaller number is better at a place of a curve's entries."""
    return place in (LOSS, TRAIN_LOSS) or lower_is_better(task.metric)


def curve_of(row: Row, place: int) -> list[tuple[float, float]]:
    """The seconds and the number at a place, at each evaluation; empty if the run has no such number."""
    entries = json.loads(row["curve"])
    return [
        (float(row["warm_up_seconds"]) + entry[0] * float(row["step_ms"]) / 1000, float(entry[place]))
        for entry in entries
        if place < len(entry)
    ]


def final_value(row: Row, place: int) -> float:
    """The number at the last evaluation; NaN if the run failed or has none."""
    curve = curve_of(row, place)
    return math.nan if row["error"] or not curve else curve[-1][1]


def best_points(task: Task, rows: Sequence[Row]) -> dict[str, str]:
    """The best point of each method at the end of the trials; equal ones by their loss.

    Args:
        task: the task.
        rows: the trials.

    Returns:
        The point by method, of the methods with a run that did not fail.
    """
    sign = 1 if lower_is_better_at(task, task.selected_by) else -1
    ranks: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        value = final_value(row, task.selected_by)
        if math.isfinite(value):
            rank = sign * value, final_value(row, LOSS)
            ranks.setdefault(row["method"], {})[row["point"]] = rank
    ordered = {method: ranks[method] for method in task.methods if method in ranks}
    return {method: min(own, key=lambda point: own[point]) for method, own in ordered.items()}


def seconds_until(curve: Curve, level: float, lower: bool) -> float:
    """The seconds at which a curve reaches a level.

    Args:
        curve: seconds and numbers, at each evaluation.
        level: the level.
        lower: whether smaller numbers are better.

    Returns:
        The seconds, interpolated between evaluations; those of the first evaluation if that has reached it;
        infinite if none has.
    """
    before = None
    for seconds, value in curve:
        if value <= level if lower else value >= level:
            if before is None:
                return seconds
            share = (before[1] - level) / (before[1] - value)
            return before[0] + share * (seconds - before[0])
        before = seconds, value
    return math.inf


def level_value(task: Task, level: Level, finals: Mapping[str, Sequence[Row]]) -> float | None:
    """The number of a level.

    Args:
        task: the task.
        level: the level.
        finals: the final runs by method.

    Returns:
        Its own value; or the median over the seeds of its method's last value with the longest budget, or of
        its best value with any budget. None if that method has no finished run.
    """
    if level.value is not None:
        return level.value
    rows = [row for row in finals.get(level.of, ()) if not row["error"]]
    if not rows:
        return None
    if not level.best:
        longest = max(float(row["budget"].split()[0]) for row in rows)
        rows = [row for row in rows if float(row["budget"].split()[0]) == longest]
        return statistics.median(final_value(row, level.place) for row in rows)
    choose = min if lower_is_better_at(task, level.place) else max
    per_seed: dict[str, list[float]] = {}
    for row in rows:
        per_seed.setdefault(row["seed"], []).extend(value for _, value in curve_of(row, level.place))
    return statistics.median(choose(values) for values in per_seed.values())


def seconds_to_level(task: Task, level: Level, value: float, rows: Sequence[Row]) -> list[float]:
    """The seconds until each seed of a method reaches a level.

    Args:
        task: the task.
        level: the level.
        value: its number.
        rows: the method's final runs.

    Returns:
        Sorted seconds of the seeds, infinite for one that failed or does not reach the level. If there are
        several budgets, those of the one with the smallest median, of those with the most seeds made so far.
    """
    lower = lower_is_better_at(task, level.place)
    budgets: dict[str, list[float]] = {}
    for row in rows:
        curve = [] if row["error"] else curve_of(row, level.place)
        budgets.setdefault(row["budget"], []).append(seconds_until(curve, value, lower))
    most = max(map(len, budgets.values()))
    return sorted(min((own for own in budgets.values() if len(own) == most), key=statistics.median))


def is_accuracy(task: Task, place: int) -> bool:
    """Whether the numbers at a place are accuracies, which tables and pictures show in percent."""
    return task.metric == "accuracy" and not lower_is_better_at(task, place)


def in_shown_units(task: Task, place: int, value: float) -> float:
    """A number in the units of tables and pictures."""
    if not is_accuracy(task, place):
        return value
    return 100 * (1 - value if task.as_error else value)


def shown_name(task: Task, place: int) -> str:
    """The name of the numbers at a place, with their unit."""
    if place in (LOSS, TRAIN_LOSS):
        name = "loss"
    elif is_accuracy(task, place):
        name = "error, %" if task.as_error else "accuracy, %"
    else:
        name = task.metric.replace("_", " ")
    return f"{'test' if place in (LOSS, METRIC) else 'training'} {name}"
