"""Writes the HTML report of one or more runs: one file without links to others."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from model_zoo.common.checkpoint.files import METRICS_FILE, RUN_FILE
from model_zoo.common.comparison import results_rows
from model_zoo.common.curves import RESOLUTION, curves_figure, read_metrics
from model_zoo.common.errors import UsageError

# Keys of run.json.
_NEEDED = ("name", "headline", "recipe", "versions", "machine")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { border-bottom: 1px solid #ccc; padding: 0.2rem 0.8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f4f4f4; padding: 0.8rem; overflow-x: auto; }
img { max-width: 100%; }
"""


@dataclass(frozen=True)
class Run:
    """What a run has left in its folder.

    Attributes:
        description: the content of run.json.
        metrics: the objects of metrics.jsonl.
    """

    description: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]

    @property
    def epochs(self) -> list[Mapping[str, Any]]:
        """The epoch objects of metrics.jsonl."""
        return [line for line in self.metrics if line["kind"] == "epoch"]


def read_run(folder: Path) -> Run:
    """Reads the folder of a run.

    Args:
        folder: the folder; the run may still go on.

    Returns:
        The run.

    Raises:
        UsageError: it is no folder of a run, a file is damaged, or no epoch has ended.
    """
    for name in (RUN_FILE, METRICS_FILE):
        if not (folder / name).is_file():
            raise UsageError(f"{folder} is not the folder of a run: it has no {name}.")
    name = RUN_FILE
    try:
        description = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        for key in _NEEDED:
            description[key]
        name = METRICS_FILE
        run = Run(description, read_metrics(folder))
        ended = len(run.epochs)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{folder / name} is damaged: {type(error).__name__}, {error}.") from error
    if not ended:
        raise UsageError(f"{folder}: no epoch has ended yet.")
    return run


def headline_of(runs: Mapping[str, Run]) -> str:
    """The metric by which all runs are judged.

    Args:
        runs: the runs by label.

    Returns:
        A key of the epoch objects, such as "test_accuracy".

    Raises:
        UsageError: the runs have different ones.
    """
    metrics = {label: run.description["headline"] for label, run in runs.items()}
    if len(set(metrics.values())) > 1:
        told = ", ".join(f"{label} by {metric}" for label, metric in metrics.items())
        raise UsageError(f"runs that are plotted together must be judged by one metric, got {told}.")
    return str(next(iter(metrics.values())))


def report(runs: Mapping[str, Run]) -> str:
    """Formats the report.

    Args:
        runs: the runs by label.

    Returns:
        HTML: a table of the results and the curves of all runs; then, of each run, the last metrics, the
        last curvature by layer, versions, machine, recipe and the status of the kernels.
    """
    metric = headline_of(runs)
    title = ", ".join(runs)
    figure = curves_figure({label: run.metrics for label, run in runs.items()}, metric, title)
    head, *rows = results_rows({label: run.epochs for label, run in runs.items()}, metric)
    parts = [f"<h1>{escape(title)}</h1>", _table(head, rows), _picture(figure, title)]
    for label, run in runs.items():
        parts += _section(label, run)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _section(label: str, run: Run) -> list[str]:
    told = run.description
    last = {key: value for key, value in run.epochs[-1].items() if key != "kind"}
    parts = [f"<h2>{escape(label)}</h2>", "<h3>After the last epoch</h3>", _pairs(last)]
    curvature = [line for line in run.metrics if line["kind"] == "curvature"]
    if curvature:
        parts += [f"<h3>Curvature after step {curvature[-1]['step']}</h3>", *_curvature(curvature[-1])]
    parts += ["<h3>Versions and machine</h3>", _pairs({**told["versions"], **told["machine"]})]
    parts += ["<h3>Data and options</h3>", _pairs({**told.get("data", {}), **told.get("options", {})})]
    parts += ["<h3>Recipe</h3>", _text(yaml.safe_dump(told["recipe"], sort_keys=False))]
    kernels = told.get("kernels", ["not recorded by the version that trained this run"])
    return [*parts, "<h3>Kernels</h3>", _text("\n".join(kernels))]


def _curvature(line: Mapping[str, Any]) -> list[str]:
    told = {key: value for key, value in line.items() if key not in ("kind", "layers")}
    head = [
        "layer",
        "verified",
        "KiB",
        "trace",
        "damping / mean eigenvalue",
        "traces of factors",
        "eigenvalues",
    ]
    rows = [
        [
            name,
            layer["verified"] if layer["preconditioned"] else f"first-order: {layer['verified']}",
            f"{layer['bytes'] / 1024:.0f}",
            _shown(layer["trace"]),
            _shown(layer["damping_ratio"]),
            ", ".join(f"{factor} {_shown(trace)}" for factor, trace in layer["traces"].items()),
            ", ".join(
                f"{factor} {_shown(low)} to {_shown(high)}"
                for factor, (low, high) in layer.get("eigenvalues", {}).items()
            ),
        ]
        for name, layer in line["layers"].items()
    ]
    return [_pairs(told), _table(head, rows)]


def _picture(figure: Figure, title: str) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=RESOLUTION)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img alt="curves of {escape(title)}" src="data:image/png;base64,{encoded}">'


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(["", ""], [[key.replace("_", " "), _shown(value)] for key, value in values.items()])


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    # A table of pairs has no head.
    first = [f"<tr>{names}</tr>"] if any(head) else []
    return "<table>\n" + "\n".join([*first, *lines]) + "\n</table>"


def _text(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
