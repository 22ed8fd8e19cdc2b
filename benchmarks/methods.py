"""All methods beside SGD with momentum and Adam, with learning rate and damping from one grid for all.

    python benchmarks/methods.py --task digits
    python benchmarks/methods.py --task autoencoder --data-dir DIR

Every method is tried at every point of its task's grid for a few epochs (``Task.trial_epochs``); the best
point by the task's figure at the end of the trial is then trained in full, one run after the other so that
seconds can be compared. All else stands in the committed recipes; ``--write-recipes`` writes the chosen
learning rate and damping into them. Trials that ran before are kept under ``--runs`` and not repeated.
Writes ``OUTPUT/TASK.json``, ``TASK.txt`` and ``TASK.png``.

"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.machine import describe_run  # noqa: E402
from model_zoo.common.curves import draw_curves, read_metrics  # noqa: E402
from model_zoo.common.methods import METHODS  # noqa: E402

FIRST_ORDER = ("sgdm", "adam")
SECOND_ORDER = tuple(METHODS)


@dataclass(frozen=True)
class Task:
    """What is trained, and the grid.

    Attributes:
        recipe: path of the recipes without the optimizer's name.
        figure: what judges a run.
        better: min or max, whichever is better.
        trial_epochs: epochs of a trial.
        rates: learning rates of the methods of ms_kfac.
        dampings: their dampings.
        first_order_rates: learning rates of SGD with momentum and of Adam.
    """

    recipe: str
    figure: str
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
        """Such as kfac-0.03-0.1."""
        return "-".join(
            [self.method, f"{self.rate:g}"] + ([] if self.damping is None else [f"{self.damping:g}"])
        )

    def overrides(self) -> list[str]:
        """What the train command takes."""
        settings = [f"optimizer.learning_rate={self.rate}"]
        if self.damping is not None:
            settings.append(f"optimizer.damping={self.damping}")
        return settings


def grid(task: Task, methods: list[str]) -> list[Point]:
    """All points of the methods."""
    points = []
    for method in methods:
        if method in FIRST_ORDER:
            points += [Point(method, rate, None) for rate in task.first_order_rates[method]]
        else:
            points += [Point(method, *pair) for pair in itertools.product(task.rates, task.dampings)]
    return points


def train(task: Task, point: Point, data: Path | None, output: Path, epochs: int | None) -> dict[str, Any]:
    """Train one point in a process of its own, unless the folder holds it already.

    Args:
        task: what is trained.
        point: the optimizer, its learning rate and damping.
        data: folder of MNIST.
        output: where the run writes.
        epochs: overrides the recipe's.

    Returns:
        "epochs": the epoch objects, none where the run failed or left the finite numbers; "error" then says
        why; "run": what run.json holds.
    """
    if not (output / "curves.png").exists():
        command = [sys.executable, "-m", "model_zoo.train", "--no-progress", "--output", str(output)]
        command += ["--recipe", str(ROOT / f"{task.recipe}_{point.method}.yaml")]
        command += [] if data is None else ["--data-dir", str(data)]
        settings = point.overrides() + ([] if epochs is None else [f"epochs={epochs}"])
        for setting in settings:
            command += ["--set", setting]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            last = [line for line in finished.stderr.strip().splitlines() if line.strip()][-1:]
            return {"epochs": [], "error": " ".join(last), "run": {}}
    lines = [line for line in read_metrics(output) if line["kind"] == "epoch"]
    if not all(math.isfinite(line[task.figure]) for line in lines):
        return {"epochs": [], "error": "not finite", "run": {}}
    return {"epochs": lines, "error": "", "run": json.loads((output / "run.json").read_text())}


def choose(
    task: Task, points: list[Point], data: Path | None, folder: Path, jobs: int
) -> tuple[dict[str, Point], dict[str, dict[str, Any]]]:
    """Try all points and pick each method's best.

    Args:
        task: what is trained.
        points: the grid.
        data: folder of MNIST.
        folder: where the trials write.
        jobs: trials at a time.

    Returns:
        The best point by method, and what each trial came to.
    """

    def trial(point: Point) -> float | None:
        result = train(task, point, data, folder / point.name(), task.trial_epochs)
        figure = result["epochs"][-1][task.figure] if result["epochs"] else None
        print(f"  {point.name():24} {figure if figure is not None else result['error']}", flush=True)
        return figure

    with ThreadPoolExecutor(jobs) as pool:
        figures = dict(zip(points, pool.map(trial, points)))
    best: dict[str, Point] = {}
    tried: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(point.method for point in points):
        own = {point: figure for point, figure in figures.items() if point.method == method}
        tried[method] = {point.name(): figure for point, figure in own.items()}
        reached = {point: figure for point, figure in own.items() if figure is not None}
        if reached:
            best[method] = task.better(reached, key=lambda point: reached[point])
    return best, tried


def write_recipe(task: Task, point: Point) -> None:
    """Write the chosen learning rate and damping into a method's recipe."""
    path = ROOT / f"{task.recipe}_{point.method}.yaml"
    text = re.sub(r"(?m)^(  learning_rate:) .*$", rf"\g<1> {point.rate:g}", path.read_text())
    if point.damping is not None:
        text = re.sub(r"(?m)^(  damping:) .*$", rf"\g<1> {point.damping:g}", text)
    path.write_text(text)


def table(task: Task, headline: str, best: dict[str, Point], runs: dict[str, dict[str, Any]]) -> str:
    """One line a method."""
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
        point, lines = best[method], run["epochs"]
        if not lines:
            rows.append((method, f"{point.rate:g}", "", "failed", run["error"], *[""] * 5))
            continue
        batch = run["run"]["recipe"]["data"]["batch_size"]
        milliseconds = 1000 * batch / (sum(line["images_per_second"] for line in lines) / len(lines))
        values = [line[headline] for line in lines]
        top = max(values) if headline.endswith("accuracy") else min(values)
        done = run["run"].get("refreshes", {})
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


def main() -> None:
    """Try the grid, train the best in full, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data-dir", type=Path)
    described = "; ".join(f"{name}: {method.description}" for name, method in METHODS.items())
    names = ",".join((*FIRST_ORDER, *SECOND_ORDER))
    parser.add_argument("--methods", default=names, metavar="NAMES", help=f"default: {names}. {described}")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time; full runs go one by one")
    parser.add_argument("--trials-only", action="store_true")
    parser.add_argument("--epochs", type=int, help="of the full runs (default: the recipes')")
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
        runs[method] = train(task, point, data, folder / f"{point.name()}-full", arguments.epochs)
        if arguments.write_recipes:
            write_recipe(task, point)
    headline = next(run["run"]["headline"] for run in runs.values() if run["run"])
    lines = [table(task, headline, best, runs)]
    lines.append(
        f"grid: {task.trial_epochs} epochs a point, judged by {task.figure}; seconds: training alone, "
        "compilation included; ms/step: without the first step"
    )
    text = "\n".join(lines)
    print(text)
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{arguments.task}.txt").write_text(text + "\n")
    folders = {method: folder / f"{best[method].name()}-full" for method in runs if runs[method]["epochs"]}
    draw_curves(folders, headline, f"{arguments.task}: best of the grid", output / f"{arguments.task}.png")
    keep = ("epoch", "seconds", "running_loss", headline, "images_per_second", "first_step_seconds")
    figures = {
        **describe_run(),
        "grid": tried,
        "runs": {
            method: {
                "recipe": run["run"].get("recipe"),
                "refreshes": run["run"].get("refreshes"),
                "error": run["error"],
                "epochs": [{key: line[key] for key in keep} for line in run["epochs"]],
            }
            for method, run in runs.items()
        },
    }
    (output / f"{arguments.task}.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
