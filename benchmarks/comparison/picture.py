"""The picture of a task: the curves of the best points by the clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Writes files without a display.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from benchmarks.comparison.curves import Row, curve_of, in_shown_units, shown_name
from benchmarks.comparison.tasks import LOSS, METRIC, TRAIN_METRIC, Task
from model_zoo.common.durable_files import replacing


def _by_budget(task: Task, rows: Sequence[Row], place: int) -> list[NDArray[np.float64]]:
    """The curves of each budget, from the shortest on: (seeds, evaluations, 2), seconds and values."""

    def length(budget: str) -> float:
        return float(budget.split()[0])

    return [
        np.array(
            [
                [(seconds, in_shown_units(task, place, value)) for seconds, value in curve_of(row, place)]
                for row in rows
                if row["budget"] == budget
            ]
        )
        for budget in sorted({row["budget"] for row in rows}, key=length)
    ]


def draw(title: str, task: Task, finals: Mapping[str, Sequence[Row]], target: Path) -> None:
    """Draws the test metric, and next to it the training metric or else the test loss.

    A line is the median of the seeds with the longest budget, a band their range. A dot with a bar is where
    the runs of a shorter budget end.

    Args:
        title: the task's name, and the settings of its runs.
        task: the task.
        finals: the final runs by method.
        target: the PNG file.
    """
    finished = {method: [row for row in rows if not row["error"]] for method, rows in finals.items()}
    trained = any(curve_of(row, TRAIN_METRIC) for rows in finished.values() for row in rows)
    picture, axes = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    for axis, place in zip(axes, (METRIC, TRAIN_METRIC if trained else LOSS)):
        for number, (method, rows) in enumerate(finished.items()):
            if not rows:
                continue
            style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--"}
            *shorter, longest = _by_budget(task, rows, place)
            values = longest[:, :, 1]
            axis.plot(longest[0, :, 0], np.median(values, 0), label=method, **style)
            axis.fill_between(
                longest[0, :, 0], values.min(0), values.max(0), color=style["color"], alpha=0.15
            )
            for curves in shorter:
                ends = curves[:, -1, 1]
                middle = np.median(ends)
                reach = [[middle - ends.min()], [ends.max() - middle]]
                axis.errorbar(curves[0, -1, 0], middle, reach, color=style["color"], marker="o", markersize=4)
        axis.set_xlabel("seconds of training on an idle machine")
        axis.set_ylabel(shown_name(task, place))
        axis.grid(alpha=0.3)
        if task.as_error or task.metric != "accuracy":
            axis.set_yscale("log")
            axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
    axes[0].legend()
    budgets = {(method, row["budget"]) for method, rows in finished.items() for row in rows}
    dots = "; dots: ends of shorter runs" if len(budgets) > sum(map(bool, finished.values())) else ""
    picture.suptitle(f"{title}: best point of each grid{dots}")
    with replacing(target) as new:
        picture.savefig(new, dpi=120)
    plt.close(picture)
