"""The tables of a task: by the clock, and of the whole grid."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.transformers.grid import METHODS

Row = Mapping[str, str]
# Shares of the budget at which the table by the clock has a column.
SHARES = (0.25, 0.5, 1.0)
REFERENCE = "adamw"


def final_loss(row: Row) -> float:
    """The last validation loss of a run; infinite if it failed."""
    curve = json.loads(row["curve"])
    return math.inf if row["error"] or not curve else float(curve[-1][1])


def best_points(rows: Sequence[Row]) -> dict[str, str]:
    """The point with the lowest final loss of each method.

    Args:
        rows: the trials.

    Returns:
        The point by method, of the methods with a run that did not fail.
    """
    losses: dict[str, dict[str, float]] = {}
    for row in rows:
        if math.isfinite(final_loss(row)):
            losses.setdefault(row["method"], {})[row["point"]] = final_loss(row)
    ordered = {method: losses[method] for method in METHODS if method in losses}
    return {method: min(own, key=lambda point: own[point]) for method, own in ordered.items()}


def mean_curve(rows: Sequence[Row]) -> list[tuple[float, float, float]]:
    """Averages the curves of the seeds that did not fail.

    Args:
        rows: the runs of one point.

    Returns:
        Seconds, loss and metric at each evaluation. The seconds are steps times the seconds per step.
    """
    curves = np.array([json.loads(row["curve"]) for row in rows if not row["error"]], float)
    step_ms = float(rows[0]["step_ms"])
    return [(steps * step_ms / 1000, loss, metric) for steps, loss, metric in curves.mean(0)]


def seconds_until(curve: Sequence[tuple[float, float, float]], loss: float) -> float | None:
    """The seconds at which a curve reaches a loss, interpolated between evaluations; None if never."""
    before = None
    for seconds, value, _ in curve:
        if value <= loss:
            if before is None:
                return seconds
            share = (before[1] - loss) / (before[1] - value)
            return before[0] + share * (seconds - before[0])
        before = seconds, value
    return None


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def clock_table(
    finals: Mapping[str, Sequence[Row]], metric: str, times: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """The table by the clock, one line per method.

    Args:
        finals: the runs of each method's best point, one per seed. A method without a finished run has no
            line.
        times: the lines of the step times, by method.
        metric: name of the metric.

    Returns:
        The lines, in Markdown.
    """
    finished = {method: [row for row in rows if not row["error"]] for method, rows in finals.items()}
    curves = {method: mean_curve(rows) for method, rows in finished.items() if rows}
    target = curves[REFERENCE][-1][1] if REFERENCE in curves else None
    head = ["method", "point", "seeds", "ms/step", "compile s", "steps"]
    head += [f"loss at {share:.0%}" for share in SHARES[:-1]]
    head += ["loss at the end (seeds)", f"{metric.replace('_', ' ')} at the end", "seconds to AdamW's loss"]
    body = []
    for method, curve in curves.items():
        rows, failed = finished[method], len(finals[method]) - len(finished[method])
        until = None if target is None else seconds_until(curve, target)
        edges = METHODS[method].edges(rows[0]["point"])
        point = rows[0]["point"].replace("optimizer.", "")
        body.append(
            [
                method,
                point + (f" (edge: {', '.join(edges).replace('optimizer.', '')})" if edges else ""),
                f"{len(rows)}" + (f" ({failed} failed)" if failed else ""),
                f"{float(rows[0]['step_ms']):.1f}",
                f"{float(times[method]['compile_seconds']):.0f}",
                rows[0]["steps"],
                *(f"{curve[max(math.ceil(share * len(curve)), 1) - 1][1]:.4f}" for share in SHARES[:-1]),
                f"{curve[-1][1]:.4f} ({', '.join(f'{final_loss(row):.4f}' for row in rows)})",
                f"{curve[-1][2]:.4f}",
                "never" if until is None else f"{until:.0f} of {curve[-1][0]:.0f}",
            ]
        )
    return _lines(head, body)


def grid_table(trials: Sequence[Row]) -> list[str]:
    """All points of all grids that were tried, with their final losses.

    Args:
        trials: the runs of the grid.

    Returns:
        The lines, in Markdown.
    """
    body = []
    for method in METHODS:
        own = [row for row in trials if row["method"] == method]
        for row in sorted(own, key=lambda row: METHODS[method].points().index(row["point"])):
            loss = final_loss(row)
            shown = f"{loss:.4f}" if math.isfinite(loss) else row["error"]
            body.append([method, row["point"].replace("optimizer.", ""), shown, row["steps"]])
    return _lines(["method", "point", "loss", "steps"], body)
