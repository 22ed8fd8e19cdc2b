"""Runs sibling recipes one after the other and sets their results side by side."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_zoo.common.curves import CURVES_FILE, draw_curves, read_metrics


def run_each(recipes: Mapping[str, Path], output: Path, arguments: Sequence[str]) -> int:
    """Trains each recipe in a process of its own, so that none inherits what another has compiled or cached.

    Args:
        recipes: the recipe of each optimizer.
        output: the folder whose subfolders, one an optimizer, the runs write to.
        arguments: further arguments of the train command.

    Returns:
        The exit status of the first run that failed, or 0.
    """
    for optimizer, recipe in recipes.items():
        command = [
            sys.executable,
            "-m",
            "model_zoo.train",
            "--recipe",
            str(recipe),
            "--output",
            str(output / optimizer),
        ]
        print(f"\n== {optimizer}: {recipe}", flush=True)
        status = subprocess.run([*command, *arguments], check=False).returncode
        if status:
            return status
    return 0


def results_table(runs: Mapping[str, list[dict[str, Any]]], figure: str) -> str:
    """One line a run: epochs, seconds, speed, training loss, the figure at the end and at its best.

    Args:
        runs: the epoch objects of each run by its label.
        figure: the key of the epoch objects that judges a run.

    Returns:
        A text table.
    """
    best = min if figure.endswith("_error") else max
    head = [
        "run",
        "epochs",
        "seconds",
        "images/s",
        "training loss",
        figure.replace("_", " "),
        "best",
        "at epoch",
    ]
    rows = [head]
    for label, epochs in runs.items():
        last, top = epochs[-1], best(epochs, key=lambda line: line[figure])
        rows.append(
            [
                label,
                f"{last['epoch']}",
                f"{last['seconds']:.1f}",
                f"{last['images_per_second']:.0f}",
                f"{last['running_loss']:.4f}",
                f"{last[figure]:.4f}",
                f"{top[figure]:.4f}",
                f"{top['epoch']}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def compare(
    recipes: Mapping[str, Path], output: Path, arguments: Sequence[str], figure: str, title: str
) -> int:
    """Runs the recipes, draws them together and prints their table.

    Args:
        recipes: the recipe of each optimizer.
        output: the folder to write to.
        arguments: further arguments of the train command.
        figure: the key of the epoch objects that judges a run.
        title: what stands above the curves.

    Returns:
        The exit status of the first run that failed, or 0.
    """
    status = run_each(recipes, output, arguments)
    if status:
        return status
    folders = {optimizer: output / optimizer for optimizer in recipes}
    draw_curves(folders, figure, title, output / CURVES_FILE)
    epochs = {
        optimizer: [line for line in read_metrics(folder) if line["kind"] == "epoch"]
        for optimizer, folder in folders.items()
    }
    print(f"\n{results_table(epochs, figure)}\n\ncurves: {output / CURVES_FILE}")
    return 0
