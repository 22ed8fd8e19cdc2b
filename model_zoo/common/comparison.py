"""Runs sibling recipes one after the other and compares their results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_zoo.common.curves import CURVES_FILE, draw_curves, read_metrics
from model_zoo.common.errors import Interrupted
from model_zoo.common.interruption import SIGNAL_STATUS
from model_zoo.common.options.networks import lower_is_better


def run_each(recipes: Mapping[str, Path], output: Path, arguments: Sequence[str]) -> int:
    """Trains each recipe in its own process, so that no run reuses another's compiled graphs or caches.

    Args:
        recipes: the recipe of each optimizer.
        output: the output folder; each run writes to a subfolder named after its optimizer.
        arguments: additional arguments of the train command.

    Returns:
        The exit status of the first run that failed, or 0.

    Raises:
        Interrupted: a signal arrived; the run has ended with a checkpoint, if it writes any.
    """
    # -m would look for the zoo in the working folder first.
    program = f"import sys; sys.path[:] = {sys.path!r}; from model_zoo.train import main; sys.exit(main())"
    for optimizer, recipe in recipes.items():
        options = ["--recipe", str(recipe), "--output", str(output / optimizer)]
        command = [sys.executable, "-c", program, *options]
        print(f"\n== {optimizer}: {recipe}", flush=True)
        process = subprocess.Popen([*command, *arguments])
        try:
            status = process.wait()
        except Interrupted as error:
            process.send_signal(error.signum)
            process.wait()
            raise
        if status:
            # A process that a signal has ended has the negative number.
            return status if status > 0 else SIGNAL_STATUS - status
    return 0


def results_rows(runs: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> list[list[str]]:
    """The cells of a table with one row per run: epochs, seconds, speed, training loss, last and best metric.

    Args:
        runs: the epoch objects of each run, by label.
        metric: the key of the metric in the epoch objects.

    Returns:
        The rows; the first one has the names of the columns.
    """
    best = min if lower_is_better(metric) else max
    head = [
        "run",
        "epochs",
        "seconds",
        "images/s",
        "training loss",
        metric.replace("_", " "),
        "best",
        "at epoch",
    ]
    rows = [head]
    for label, epochs in runs.items():
        last, top = epochs[-1], best(epochs, key=lambda line: line[metric])
        rows.append(
            [
                label,
                f"{last['epoch']}",
                f"{last['seconds']:.1f}",
                f"{last['images_per_second']:.0f}",
                f"{last['running_loss']:.4f}",
                f"{last[metric]:.4f}",
                f"{top[metric]:.4f}",
                f"{top['epoch']}",
            ]
        )
    return rows


def results_table(runs: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> str:
    """Formats :func:`results_rows` as a text table."""
    rows = results_rows(runs, metric)
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def compare(
    recipes: Mapping[str, Path], output: Path, arguments: Sequence[str], metric: str, title: str
) -> int:
    """Runs the recipes, plots them together and prints their table.

    Args:
        recipes: the recipe of each optimizer.
        output: the folder to write to.
        arguments: additional arguments of the train command.
        metric: the key of the metric in the epoch objects.
        title: the title of the plot.

    Returns:
        The exit status of the first run that failed, or 0.
    """
    status = run_each(recipes, output, arguments)
    if status:
        return status
    folders = {optimizer: output / optimizer for optimizer in recipes}
    draw_curves(folders, metric, title, output / CURVES_FILE)
    epochs = {
        optimizer: [line for line in read_metrics(folder) if line["kind"] == "epoch"]
        for optimizer, folder in folders.items()
    }
    print(f"\n{results_table(epochs, metric)}\n\ncurves: {output / CURVES_FILE}")
    return 0
