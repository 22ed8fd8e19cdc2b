"""Compares optimizers by the clock, with equal tuning.

    python -m benchmarks.comparison.step_times --task convnet_cifar10 --data-dir DIR
    python -m benchmarks.comparison --task convnet_cifar10 --data-dir DIR
    python -m benchmarks.comparison --task convnet_cifar10 --tables-only

Every method is tried at each of the 12 points of its grid (grid.py), with the same budget per point. The best
point then trains once per seed with each final budget. Other settings come from the recipes; methods without
a recipe follow from K-FAC's by overrides (grid.py). The learning rate follows the budget. Compilation and
evaluation do not count.

Trials of image tasks hold out the last 5,000 training images: they train on the others, and the metric of the
5,000 selects the point. Final runs train on all training images and report the test images. The texts and
the digits have nothing to spare: their trials use the test split, and select by its loss.

A budget is in epochs, or in seconds of an idle machine. The times that the first command measured turn
seconds into a number of steps, and the steps of a curve into seconds. Only the first command needs an idle
machine.

Each finished run adds a line to OUTPUT/TASK.csv. The same command continues where an earlier one ended: it
repeats no run with the same options. Methods take turns. OUTPUT/TASK.md has the tables, OUTPUT/TASK.png the
curves. With only some of the task's methods they are OUTPUT/TASK_METHOD_METHOD.md and .png.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.comparison.budget import read_budget, read_budgets
from benchmarks.comparison.command_line import parse, shared_options
from benchmarks.comparison.curves import Row, best_points
from benchmarks.comparison.grid import POINTS
from benchmarks.comparison.picture import draw
from benchmarks.comparison.runs import Plan, Runner, finals, trials
from benchmarks.comparison.table import clock_table, final_table, grid_table
from benchmarks.comparison.tasks import TASKS


def _by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def name_of_results(task: str, methods: Sequence[str]) -> str:
    """The name of the tables and curves: the task's, unless they lack some of its methods."""
    if set(TASKS[task].compared) <= set(methods):
        return task
    return "_".join([task, *(name for name in TASKS[task].methods if name in methods)])


def write_results(runner: Runner, parsed: argparse.Namespace, tried: Sequence[Plan]) -> None:
    """Writes the tables and the curves from the log, OUTPUT/TASK.md and OUTPUT/TASK.png.

    Args:
        runner: has the log.
        parsed: the command line.
        tried: the trials.
    """
    task = TASKS[parsed.task]
    grid = runner.done(tried)
    best = best_points(task, grid)
    planned = finals(best, parsed.final_budgets, parsed.seeds, parsed.final_evaluations)
    ended = _by_method(runner.done(planned))
    made = sum(map(len, ended.values()))
    title = ", ".join([parsed.task, *runner.settings])
    name = name_of_results(parsed.task, parsed.methods)
    lines = [f"# {title}", ""]
    lines += [f"Trials made: {len(grid)} of {len(tried)}, {POINTS} per method, {parsed.budget} each, seed 1."]
    lines += [f"Final runs made: {made} of {len(planned)}.", ""]
    if ended:
        lines += ["## Best point of each grid: median (range of the seeds)", ""]
        lines += [*final_table(task, ended, runner.times), ""]
        lines += [f"## Seconds: median (range of the seeds), ratio to {task.reference}'s median", ""]
        if len(parsed.final_budgets) > 1:
            lines += ["Of several budgets, the one with the smallest median.", ""]
        lines += [*clock_table(task, ended), ""]
        if any(not row["error"] for rows in ended.values() for row in rows):
            draw(title, task, ended, parsed.output / f"{name}.png")
            lines += [f"![curves]({name}.png)", ""]
    lines += ["## All trials", "", *grid_table(task, grid)]
    text = "\n".join(lines) + "\n"
    print(text)
    (parsed.output / f"{name}.md").write_text(text, encoding="utf-8")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; what it leaves out comes from the task."""
    parser = shared_options("python -m benchmarks.comparison", __doc__)
    parser.add_argument("--budget", type=read_budget, help="of a trial, such as 60s or 3epochs")
    parser.add_argument("--final-budgets", type=read_budgets, help="of the best points, separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="of the best points (default: 3)")
    parser.add_argument("--evaluations", type=int, help="per trial")
    parser.add_argument("--final-evaluations", type=int, help="per final run")
    parser.add_argument("--max-hours", type=float, default=1e6, help="start no run after so many hours")
    parser.add_argument("--tables-only", action="store_true", help="make no run")
    parsed = parse(parser, arguments)
    task = TASKS[parsed.task]
    for name in ("budget", "final_budgets", "evaluations", "final_evaluations"):
        if getattr(parsed, name) is None:
            setattr(parsed, name, getattr(task, name))
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Tunes, trains the best points, and writes tables and curves."""
    parsed = parse_arguments(arguments)
    runner = Runner(parsed)
    tried = list(trials(parsed.task, parsed.methods, parsed.budget, parsed.evaluations))
    if runner.make(tried):
        best = best_points(TASKS[parsed.task], runner.done(tried))
        runner.make(finals(best, parsed.final_budgets, parsed.seeds, parsed.final_evaluations))
    write_results(runner, parsed, tried)
    return 0


if __name__ == "__main__":
    sys.exit(main())
