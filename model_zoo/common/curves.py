"""Plots training curves from the metrics.jsonl of one or more runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # Writes files without a display.

import matplotlib.pyplot as plt

from model_zoo.common.checkpoint.files import METRICS_FILE
from model_zoo.common.durable_files import replacing

CURVES_FILE = "curves.png"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The objects of a run's metrics.jsonl, in order, without a last line that a killed run has cut."""
    lines = (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _draw_run(axes: Any, label: str, metrics: Sequence[Mapping[str, Any]], metric: str) -> None:
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    steps = [line for line in metrics if line["kind"] == "step"]
    steps_per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"]
    losses = [line["running_loss"] for line in steps]
    (curve,) = axes[0, 0].plot([line["step"] / steps_per_epoch for line in steps], losses, label=label)
    style = {"color": curve.get_color(), "label": label}
    axes[0, 1].plot([line["seconds"] for line in steps], losses, **style)
    values = [line[metric] for line in epochs]
    axes[1, 0].plot([line["epoch"] for line in epochs], values, marker=".", **style)
    axes[1, 1].plot([line["seconds"] for line in epochs], values, marker=".", **style)


def draw_curves(runs: Mapping[str, Path], metric: str, title: str, target: Path) -> None:
    """Plots training loss (top) and a metric (bottom) against epochs (left) and training seconds (right).

    Args:
        runs: the output folder of each run, by label.
        metric: the key of the metric in the epoch objects, such as "test_accuracy".
        title: the title of the plot.
        target: the PNG file to write.
    """
    picture, axes = plt.subplots(2, 2, figsize=(11, 7.5), sharey="row", constrained_layout=True)
    for label, folder in runs.items():
        _draw_run(axes, label, read_metrics(folder), metric)
    for row, name in enumerate(("training loss", metric.replace("_", " "))):
        axes[row, 0].set_ylabel(name)
        for column, unit in enumerate(("epochs", "seconds of training, compilation included")):
            axes[row, column].set_xlabel(unit)
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].set_yscale("log")
    if metric.endswith("_error"):
        axes[1, 0].set_yscale("log")
    axes[0, 0].legend()
    picture.suptitle(title)
    with replacing(target) as new:
        picture.savefig(new, dpi=120)
    plt.close(picture)
