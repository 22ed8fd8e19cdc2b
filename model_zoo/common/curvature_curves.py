"""Plots what an optimizer's diagnostics say over the course of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

# By label of a run: epochs passed, and the curvature object of metrics.jsonl.
Curvature = Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]]


def _of_layers(line: Mapping[str, Any], name: str) -> list[float]:
    found = [layer.get(name) for layer in line["layers"].values()]
    return [value for value in found if value is not None]


def _eigenvalues(line: Mapping[str, Any], which: int) -> list[float]:
    # Rounding makes the smallest eigenvalue of a singular factor negative: a logarithmic axis leaves it out.
    # None stands for NaN.
    pairs = [pair for layer in line["layers"].values() for pair in layer.get("eigenvalues", {}).values()]
    return [pair[which] for pair in pairs if (pair[which] or 0.0) > 0]


@dataclass(frozen=True)
class Panel:
    """One plot over epochs.

    Attributes:
        title: what it shows.
        curves: by the style of its line, what reads one or many values from a curvature object. Many are
            drawn as their median in a band from the smallest to the largest.
        logarithmic: whether the axis of the values is.
    """

    title: str
    curves: Mapping[str, Callable[[Mapping[str, Any]], Iterable[float | None]]]
    logarithmic: bool = False

    def has_data(self, runs: Curvature) -> bool:
        """Whether any run has a value other than 0."""
        lines = [line for run in runs.values() for _, line in run]
        return any(value for line in lines for read in self.curves.values() for value in read(line))

    def draw(self, axes: Any, runs: Curvature) -> None:
        """Draws the runs, in the colours of their training curves."""
        for number, run in enumerate(runs.values()):
            for style, read in self.curves.items():
                rows = [
                    (epoch, values)
                    for epoch, line in run
                    if (values := [value for value in read(line) if value is not None])
                ]
                epochs = [epoch for epoch, _ in rows]
                medians = [float(np.median(values)) for _, values in rows]
                axes.plot(epochs, medians, style, color=f"C{number}", marker=".", markersize=3)
                if any(len(values) > 1 for _, values in rows):
                    low, high = [min(values) for _, values in rows], [max(values) for _, values in rows]
                    axes.fill_between(epochs, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set_title(self.title, fontsize="medium")
        axes.set_xlabel("epochs")
        axes.grid(alpha=0.3)
        if self.logarithmic:
            axes.set_yscale("log")


_PANELS = (
    Panel("damping", {"-": lambda line: [line["damping"]]}, logarithmic=True),
    Panel("factor of the KL clip", {"-": lambda line: [line["clip_factor"]]}),
    Panel("damping / mean eigenvalue, by layer", {"-": lambda line: _of_layers(line, "damping_ratio")}, True),
    Panel("trace of the Fisher block, by layer", {"-": lambda line: _of_layers(line, "trace")}, True),
    Panel(
        "largest (-) and smallest (--) eigenvalues of factors",
        {"-": lambda line: _eigenvalues(line, 1), "--": lambda line: _eigenvalues(line, 0)},
        logarithmic=True,
    ),
    Panel(
        "statistics taken (-), inverses computed (--)",
        {"-": lambda line: [line["statistics"]], "--": lambda line: [line["inverses"]]},
    ),
    Panel(
        "refused batches (-), skipped steps (--)",
        {"-": lambda line: [line["refused"]], "--": lambda line: [line["skipped_steps"]]},
    ),
    Panel("seconds per step", {"-": lambda line: [line["seconds_per_step"]]}),
)


def drawn_panels(runs: Curvature) -> list[Panel]:
    """The panels that show something.

    Args:
        runs: the curvature objects of each run, by label; empty for an optimizer without curvature.

    Returns:
        The panels.
    """
    return [panel for panel in _PANELS if panel.has_data(runs)]
