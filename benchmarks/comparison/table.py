"""The tables of a task: the best points at the end, the seconds to levels, and the whole grid."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.comparison.curves import (
    Row,
    curve_of,
    final_value,
    in_shown_units,
    level_value,
    seconds_to_level,
    shown_name,
)
from benchmarks.comparison.tasks import LOSS, METRIC, TRAIN_METRIC, Task


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _range(values: Sequence[float], digits: int, middle: float | None = None) -> str:
    """The median and, of several seeds, the range."""
    shown = f"{statistics.median(values) if middle is None else middle:.{digits}f}"
    ends = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{shown} ({' to '.join(ends)})" if ends[0] != ends[1] else shown


def _budget(row: Row) -> str:
    return row["budget"] if " " in row["budget"] else f"{row['budget']} s"


def final_table(
    task: Task, finals: Mapping[str, Sequence[Row]], times: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """The best points at the end of each budget: medians and ranges of the seeds.

    Args:
        task: the task.
        finals: the final runs by method.
        times: the lines of the step times, by method.

    Returns:
        The lines, in Markdown.
    """
    places = [METRIC, LOSS]
    if any(curve_of(row, TRAIN_METRIC) for rows in finals.values() for row in rows):
        places.append(TRAIN_METRIC)
    reference = times.get(task.reference)
    head = ["method", "point", "ms/step", f"of {task.reference}'s", "compile s", "budget", "steps", "seeds"]
    body = []
    for method, rows in finals.items():
        for budget in dict.fromkeys(row["budget"] for row in rows):
            runs = [row for row in rows if row["budget"] == budget]
            finished = [row for row in runs if not row["error"]]
            failed = len(runs) - len(finished)
            edges = task.methods[method].edges(runs[0]["point"])
            milliseconds = float(runs[0]["step_ms"])
            share = f"{milliseconds / float(reference['step_ms']):.2f}" if reference else "not measured"
            point = runs[0]["point"] + (f" (edge: {', '.join(edges)})" if edges else "")
            ends = [
                _range([in_shown_units(task, place, final_value(row, place)) for row in finished], 4)
                if finished
                else "failed"
                for place in places
            ]
            body.append(
                [
                    method,
                    point.replace("optimizer.", ""),
                    f"{milliseconds:.1f}",
                    share,
                    f"{float(times[method]['compile_seconds']):.0f}",
                    _budget(runs[0]),
                    (finished or runs)[0]["steps"],
                    f"{len(finished)}" + (f" ({failed} failed)" if failed else ""),
                    *ends,
                ]
            )
    return _lines([*head, *(shown_name(task, place) for place in places)], body)


def _cell(seconds: Sequence[float], reference: float) -> str:
    middle = statistics.median(seconds)
    reached = [value for value in seconds if math.isfinite(value)]
    if not math.isfinite(middle):
        return "not reached" + (f" ({len(reached)} of {len(seconds)} seeds)" if reached else "")
    shown = _range(reached, 1, middle)
    if len(reached) < len(seconds):
        shown += f" ({len(reached)} of {len(seconds)} seeds)"
    return shown + (f", {middle / reference:.2f}" if math.isfinite(reference) else "")


def clock_table(task: Task, finals: Mapping[str, Sequence[Row]]) -> list[str]:
    """The seconds until each method reaches the task's levels: medians and ranges of the seeds.

    Args:
        task: the task.
        finals: the final runs by method.

    Returns:
        The lines, in Markdown. The last number of a cell is the ratio to the reference's seconds.
    """
    columns: list[list[str]] = []
    head = ["method"]
    for level in task.levels:
        value = level_value(task, level, finals)
        if value is None:
            head.append(f"{level.name} (not finished)")
            columns.append(["not finished"] * len(finals))
            continue
        own = f" ({in_shown_units(task, level.place, value):.4g})" if level.value is None else ""
        head.append(level.name + own)
        seconds = {method: seconds_to_level(task, level, value, rows) for method, rows in finals.items()}
        reference = statistics.median(seconds.get(task.reference, [math.inf]))
        columns.append([_cell(values, reference) for values in seconds.values()])
    return _lines(head, [[method, *cells] for method, cells in zip(finals, zip(*columns))])


def grid_table(task: Task, trials: Sequence[Row]) -> list[str]:
    """All points of all grids that were tried, with the numbers at their ends.

    Args:
        task: the task.
        trials: the runs of the grid.

    Returns:
        The lines, in Markdown.
    """
    body = []
    for method, chosen in task.methods.items():
        own = [row for row in trials if row["method"] == method]
        for row in sorted(own, key=lambda row: chosen.points().index(row["point"])):
            metric = in_shown_units(task, METRIC, final_value(row, METRIC))
            ends = [row["error"], ""] if row["error"] else [f"{metric:.4f}", f"{final_value(row, LOSS):.4f}"]
            body.append([method, row["point"].replace("optimizer.", ""), *ends, row["steps"]])
    names = [shown_name(task, place).replace("test", task.trial_split) for place in (METRIC, LOSS)]
    return _lines(["method", "point", *names, "steps"], body)
