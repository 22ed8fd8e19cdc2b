"""Plots runs: ms-kfac-zoo plot runs/FIRST runs/SECOND --output curves.png --html report.html."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_zoo.common.command_line import run_command
from model_zoo.common.errors import UsageError


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="ms-kfac-zoo plot",
        description="Plots the training curves of runs and, of runs with --monitor-every, their curvature. "
        "A run may still go on.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the output folder of a run")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the picture to write: .png, .svg or .pdf, by its suffix"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="the report to write, one HTML file without links to others: results, curves and, of each run, "
        "metrics, curvature, versions, machine, recipe and kernels",
    )
    parsed = parser.parse_args(arguments)
    if parsed.output is None and parsed.html is None:
        parser.error("one of --output and --html is required")
    if parsed.output is not None and parsed.output.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--output must end in .png, .svg or .pdf, got {parsed.output}")
    return parsed


def _labels(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """The runs' own names; their folders, where two have one name."""
    return list(names) if len(set(names)) == len(names) else [str(folder) for folder in folders]


def plot(options: argparse.Namespace) -> int:
    """Writes the picture and the report, and prints the table of the results."""
    # Imported late, because importing matplotlib takes seconds and a usage error should appear at once.
    from model_zoo.common.comparison import results_table
    from model_zoo.common.curves import draw_curves
    from model_zoo.common.durable_files import write_text
    from model_zoo.common.report import headline_of, read_run, report

    folders = [folder.resolve() for folder in options.runs]
    if len(set(folders)) < len(folders):
        raise UsageError("each run can be named once.")
    found = [read_run(folder) for folder in options.runs]
    labels = _labels(options.runs, [run.description["name"] for run in found])
    runs = dict(zip(labels, found))
    metric = headline_of(runs)
    if options.output is not None:
        draw_curves(dict(zip(labels, options.runs)), metric, ", ".join(labels), options.output)
    if options.html is not None:
        write_text(options.html, report(runs))
    print(results_table({label: run.epochs for label, run in runs.items()}, metric))
    for path in (options.output, options.html):
        if path is not None:
            print(f"written: {path}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status is 2 for an error in a run or the command line."""
    options = parse_arguments(arguments)
    return run_command(lambda _: plot(options))


if __name__ == "__main__":
    sys.exit(main())
