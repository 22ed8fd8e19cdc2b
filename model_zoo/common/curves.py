"""Plots training curves, and the optimizer's curvature, from the metrics.jsonl of one or more runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from model_zoo.common.checkpoint.files import METRICS_FILE
from model_zoo.common.curvature_curves import drawn_panels
from model_zoo.common.durable_files import replacing
from model_zoo.common.json_lines import values_of

CURVES_FILE = "curves.png"
RESOLUTION = 120

Metrics = Sequence[Mapping[str, Any]]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The objects of a run's metrics.jsonl, in order, without a last line that a killed run has cut."""
    lines = (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    return [values_of(line) for line in lines if line.endswith("\n")]


def _draw_run(axes: Any, label: str, metrics: Metrics, metric: str, steps_per_epoch: float) -> None:
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    steps = [line for line in metrics if line["kind"] == "step"]
    losses = [line["running_loss"] for line in steps]
    (curve,) = axes[0, 0].plot([line["step"] / steps_per_epoch for line in steps], losses, label=label)
    style = {"color": curve.get_color(), "label": label}
    axes[0, 1].plot([line["seconds"] for line in steps], losses, **style)
    values = [line[metric] for line in epochs]
    axes[1, 0].plot([line["epoch"] for line in epochs], values, marker=".", **style)
    axes[1, 1].plot([line["seconds"] for line in epochs], values, marker=".", **style)


def curves_figure(runs: Mapping[str, Metrics], metric: str, title: str) -> Figure:
    """Plots training loss and a metric against epochs (left) and training seconds (right), then curvature.

    Args:
        runs: the objects of metrics.jsonl of each run, by label; each run has at least one epoch object.
        metric: the key of the metric in the epoch objects, such as "test_accuracy".
        title: the title of the plot.

    Returns:
        The figure. If any run has curvature objects, it has a panel for each kind of number in them.
    """
    steps_per_epoch = {}
    for label, metrics in runs.items():
        last = [line for line in metrics if line["kind"] == "epoch"][-1]
        steps_per_epoch[label] = last["step"] / last["epoch"]
    curvature = {
        label: [
            (line["step"] / steps_per_epoch[label], line) for line in metrics if line["kind"] == "curvature"
        ]
        for label, metrics in runs.items()
    }
    panels = drawn_panels(curvature)
    height, below = 7.5, 2.7 * -(-len(panels) // 3)
    figure = Figure(figsize=(11, height + below), layout="constrained")
    figure.suptitle(title)
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, below]) if panels else [figure]
    axes = parts[0].subplots(2, 2, sharey="row")
    for label, metrics in runs.items():
        _draw_run(axes, label, metrics, metric, steps_per_epoch[label])
    for row, name in enumerate(("training loss", metric.replace("_", " "))):
        axes[row, 0].set_ylabel(name)
        for column, unit in enumerate(("epochs", "seconds of training, compilation included")):
            axes[row, column].set_xlabel(unit)
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].set_yscale("log")
    if metric.endswith("_error"):
        axes[1, 0].set_yscale("log")
    axes[0, 0].legend()
    if panels:
        grid = parts[1].subplots(-(-len(panels) // 3), 3, squeeze=False).ravel()
        for place, axis in enumerate(grid):
            if place < len(panels):
                panels[place].draw(axis, curvature)
            else:
                axis.set_axis_off()
    return figure


def draw_curves(runs: Mapping[str, Path], metric: str, title: str, target: Path) -> None:
    """Writes the plot of :func:`curves_figure` to a file.

    Args:
        runs: the output folder of each run, by label.
        metric: the key of the metric in the epoch objects, such as "test_accuracy".
        title: the title of the plot.
        target: the file to write; its suffix is the format.
    """
    figure = curves_figure({label: read_metrics(folder) for label, folder in runs.items()}, metric, title)
    with replacing(target) as new:
        figure.savefig(new, dpi=RESOLUTION)
