"""Compares all methods with momentum SGD and Adam, with learning rate and damping from one grid.

    python benchmarks/methods.py --task digits
    python benchmarks/methods.py --task autoencoder --data-dir DIR

Every method is tried at every point of the task's grid for a few epochs (``Task.trial_epochs``). The point
with the best final metric is then trained in full, one run at a time so that seconds are comparable. All
other settings come from the committed recipes; ``--write-recipes`` writes the chosen learning rate and
damping into them. Finished runs of the same recipes under ``--runs`` are not repeated. Writes
``OUTPUT/TASK.json``, ``TASK.txt`` and ``TASK.png``, of some methods ``TASK_METHOD_METHOD.json`` and so on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_run  # noqa: E402
from benchmarks.support.zoo_runs import ZooRun, train  # noqa: E402
from model_zoo.common.curves import draw_curves  # noqa: E402
from model_zoo.common.methods import METHODS  # noqa: E402

FIRST_ORDER = ("sgdm", "adam")
SECOND_ORDER = tuple(METHODS)


@dataclass(frozen=True)
class Task:
    """A task and its grid.

    Attributes:
        recipe: path of the recipes without the optimizer's name.
        metric: the metric.
        better: min or max of the metric.
        trial_epochs: epochs of a trial.
        rates: learning rates of the methods of ms_kfac.
        dampings: their dampings.
        first_order_rates: learning rates of SGD with momentum and of Adam.
    """

    recipe: str
    metric: str
    better: Any
    trial_epochs: int
    rates: tuple[float, ...]
    dampings: tuple[float, ...]
    first_order_rates: dict[str, tuple[float, ...]]


TASKS = {
    "digits": Task(
        "model_zoo/resnet/resnet20_digits",
        "running_loss",
        min,
        2,
        (0.03, 0.1),
        (0.01, 0.1),
        {"sgdm": (0.01, 0.03, 0.1, 0.3), "adam": (0.0003, 0.001, 0.003, 0.01)},
    ),
    "autoencoder": Task(
        "model_zoo/autoencoder/autoencoder_mnist",
        "train_reconstruction_error",
        min,
        1,
        (0.03, 0.1),
        (0.1, 0.3),
        {"sgdm": (0.0003, 0.001, 0.003, 0.01), "adam": (0.0003, 0.001, 0.003, 0.01)},
    ),
}


@dataclass(frozen=True)
class Point:
    """One point of the grid; first-order methods have no damping."""

    method: str
    rate: float
    damping: float | None

    def name(self) -> str:
        """A label such as kfac-0.03-0.1."""
        return "-".join(
            [self.method, f"{self.rate:g}"] + ([] if self.damping is None else [f"{self.damping:g}"])
        )

    def overrides(self) -> list[str]:
        """The overrides for the train command."""
        settings = [f"optimizer.learning_rate={self.rate}"]
        if self.damping is not None:
            settings.append(f"optimizer.damping={self.damping}")
        return settings


def grid(task: Task, methods: list[str]) -> list[Point]:
    """All grid points of the methods."""
    points = []
    for method in methods:
        if method in FIRST_ORDER:
            points += [Point(method, rate, None) for rate in task.first_order_rates[method]]
        else:
            points += [Point(method, *pair) for pair in itertools.product(task.rates, task.dampings)]
    return points


def train_point(task: Task, point: Point, data: Path | None, output: Path, epochs: int | None) -> ZooRun:
    """Trains one point, unless the run is already finished.

    Args:
        task: the task.
        point: the optimizer, its learning rate and damping.
        data: folder of MNIST.
        output: the output folder of the run.
        epochs: overrides the epochs of the recipe.

    Returns:
        The run.
    """
    settings = point.overrides() + ([] if epochs is None else [f"epochs={epochs}"])
    return train(ROOT / f"{task.recipe}_{point.method}.yaml", settings, data, output, task.metric)


def choose(
    task: Task, points: list[Point], data: Path | None, folder: Path, jobs: int
) -> tuple[dict[str, Point], dict[str, dict[str, Any]]]:
    """Tries all points and selects the best one of each method.

    Args:
        task: the task.
        points: the grid.
        data: folder of MNIST.
        folder: the parent of the output folders.
        jobs: parallel trials.

    Returns:
        The best point by method, and the result of each trial.
    """

    def trial(point: Point) -> float | None:
        result = train_point(task, point, data, folder / point.name(), task.trial_epochs)
        metric = result.epochs[-1][task.metric] if result.epochs else None
        print(f"  {point.name():24} {metric if metric is not None else result.error}", flush=True)
        return metric

    with ThreadPoolExecutor(jobs) as pool:
        metrics = dict(zip(points, pool.map(trial, points)))
    best: dict[str, Point] = {}
    tried: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(point.method for point in points):
        own = {point: metric for point, metric in metrics.items() if point.method == method}
        tried[method] = {point.name(): metric for point, metric in own.items()}
        reached = {point: metric for point, metric in own.items() if metric is not None}
        if reached:
            best[method] = task.better(reached, key=lambda point: reached[point])
    return best, tried


def write_recipe(task: Task, point: Point) -> None:
    """Writes the chosen learning rate and damping into a method's recipe."""
    path = ROOT / f"{task.recipe}_{point.method}.yaml"
    text = re.sub(r"(?m)^(  learning_rate:) .*$", rf"\g<1> {point.rate:g}", path.read_text())
    if point.damping is not None:
        text = re.sub(r"(?m)^(  damping:) .*$", rf"\g<1> {point.damping:g}", text)
    path.write_text(text)


def table(task: Task, headline: str, best: dict[str, Point], runs: dict[str, ZooRun]) -> str:
    """Formats one line per method."""
    head = (
        "method",
        "lr",
        "damping",
        "loss",
        headline,
        "best",
        "seconds",
        "ms/step",
        "statistics",
        "inverses",
    )
    rows = [head]
    for method, run in runs.items():
        point, lines = best[method], run.epochs
        if not lines:
            rows.append((method, f"{point.rate:g}", "", "failed", run.error, *[""] * 5))
            continue
        batch = run.description["recipe"]["data"]["batch_size"]
        milliseconds = 1000 * batch / (sum(line["images_per_second"] for line in lines) / len(lines))
        values = [line[headline] for line in lines]
        top = max(values) if headline.endswith("accuracy") else min(values)
        done = run.description.get("refreshes", {})
        rows.append(
            (
                method,
                f"{point.rate:g}",
                "" if point.damping is None else f"{point.damping:g}",
                f"{lines[-1]['running_loss']:.4g}",
                f"{values[-1]:.4g}",
                f"{top:.4g}",
                f"{lines[-1]['seconds']:.1f}",
                f"{milliseconds:.0f}",
                str(done.get("statistics", "")),
                str(done.get("inverses", "")),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


def name_of_results(task: str, methods: Collection[str]) -> str:
    """The name of the files: the task's, unless they lack some of the methods."""
    chosen = [name for name in (*FIRST_ORDER, *SECOND_ORDER) if name in methods]
    return task if len(chosen) == len(FIRST_ORDER + SECOND_ORDER) else "_".join([task, *chosen])


def main() -> None:
    """Tries the grid, trains the best points in full and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data-dir", type=Path)
    described = "; ".join(f"{name}: {method.description}" for name, method in METHODS.items())
    names = ",".join((*FIRST_ORDER, *SECOND_ORDER))
    parser.add_argument("--methods", default=names, metavar="NAMES", help=f"default: {names}. {described}")
    parser.add_argument("--jobs", type=int, default=2, help="parallel trials; full runs are sequential")
    parser.add_argument("--trials-only", action="store_true")
    parser.add_argument("--epochs", type=int, help="epochs of the full runs (default: the recipes')")
    parser.add_argument("--write-recipes", action="store_true")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "methods")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "methods")
    arguments = parser.parse_args()
    task = TASKS[arguments.task]
    folder = arguments.runs.resolve() / arguments.task
    output = arguments.output.resolve()
    data = None if arguments.data_dir is None else arguments.data_dir.resolve()
    methods = arguments.methods.split(",")
    best, tried = choose(task, grid(task, methods), data, folder, arguments.jobs)
    if arguments.trials_only:
        return
    runs = {}
    for method, point in best.items():
        runs[method] = train_point(task, point, data, folder / f"{point.name()}-full", arguments.epochs)
        if arguments.write_recipes:
            write_recipe(task, point)
    headline = next(run.description["headline"] for run in runs.values() if run.description)
    lines = [table(task, headline, best, runs)]
    lines.append(
        f"grid: {task.trial_epochs} epochs per point, selected by {task.metric}; seconds: training alone, "
        "compilation included; ms/step: without the first step"
    )
    text = "\n".join(lines)
    print(text)
    output.mkdir(parents=True, exist_ok=True)
    name = name_of_results(arguments.task, methods)
    (output / f"{name}.txt").write_text(text + "\n")
    folders = {method: folder / f"{best[method].name()}-full" for method in runs if runs[method].epochs}
    draw_curves(folders, headline, f"{arguments.task}: best of the grid", output / f"{name}.png")
    keep = ("epoch", "seconds", "running_loss", headline, "images_per_second", "first_step_seconds")
    results = {
        **describe_run(),
        "grid": tried,
        "runs": {
            method: {
                "recipe": run.description.get("recipe"),
                "refreshes": run.description.get("refreshes"),
                "error": run.error,
                "epochs": [{key: line[key] for key in keep} for line in run.epochs],
            }
            for method, run in runs.items()
        },
    }
    (output / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
