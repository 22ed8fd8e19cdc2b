"""Compares the methods on the zoo's transformers, with equal tuning and by the clock.

    python -m benchmarks.transformers.step_times --task gpt_stdlib
    python -m benchmarks.transformers --task gpt_stdlib --seconds 120 --final-seconds 600 --seeds 3
    python -m benchmarks.transformers --task gpt_stdlib --seconds 120 --final-seconds 600 --tables-only

Every method is tried at each of the 12 points of its grid (grid.py), with the same budget per point. The
point with the lowest validation loss then trains once per seed with the final budget. Other settings come
from the recipes. Each run is a process of its own. The learning rate has a warm-up of 5 % and a cosine over
the budget. Compilation and evaluation do not count.

A budget is in seconds of an idle machine. The times that the first command measured turn it into a number of
steps, and the steps of a curve into seconds. Only the first command needs an idle machine.

Each finished run adds a line to OUTPUT/TASK.csv. The same command continues where an earlier one ended: it
repeats no run with the same options. Methods take turns, so that an interrupted tuning has as many points of
each. OUTPUT/TASK.md has the table by the clock and the grid.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import describe_run
from benchmarks.support.run_log import RunLog, error_line
from benchmarks.transformers.budget import steps_in
from benchmarks.transformers.grid import (
    DEFAULT_METHODS,
    METHODS,
    TASKS,
    known_methods,
    recipe_of,
    settings_of,
)
from benchmarks.transformers.step_times import RESULTS, step_times_log
from benchmarks.transformers.table import best_points, clock_table, grid_table

ROOT = Path(__file__).resolve().parents[2]
KEY = ("method", "point", "settings", "seed", "budget", "evaluations", "step_ms")
COLUMNS = (
    *KEY,
    "steps",
    "curve",
    "error",
    "commit",
    "date",
    "processor",
    "cpus",
)
METRICS = {"gpt_stdlib": "bits_per_byte"}
# A run takes at most so many times its budget, with evaluation, compilation and other programs.
SLOWEST = 20
LEAST_TIMEOUT = 3600


@dataclass(frozen=True)
class Plan:
    """A run to make.

    Attributes:
        method: a key of METHODS.
        point: a point of its grid.
        seed: the seed.
        budget: how long to train, in seconds of an idle machine.
    """

    method: str
    point: str
    seed: int
    budget: float


class Runner:
    """Makes runs, unless the log has them.

    Args:
        arguments: the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.task: str = arguments.task
        self.settings: list[str] = arguments.set
        self.data_dir: Path | None = arguments.data_dir
        self.evaluations: int = arguments.evaluations
        self.log = RunLog(arguments.output / f"{arguments.task}.csv", COLUMNS, KEY)
        self.deadline = time.monotonic() + 3600 * arguments.max_hours
        self.tables_only: bool = arguments.tables_only
        times = step_times_log(arguments.output, arguments.task)
        found = {
            name: times.find(method=name, settings=" ".join(arguments.set)) for name in arguments.methods
        }
        self.times = {name: row for name, row in found.items() if row is not None}
        missing = [name for name, row in found.items() if row is None]
        if missing:
            raise SystemExit(
                f"no step time of {', '.join(missing)}: first run python -m "
                "benchmarks.transformers.step_times with the same --task, --set and --output"
            )

    def done(self, plan: Plan) -> dict[str, str] | None:
        """The line of a run, or None if it was not made."""
        return self.log.find(
            method=plan.method,
            point=plan.point,
            settings=" ".join(self.settings),
            seed=plan.seed,
            budget=f"{plan.budget:g}",
            evaluations=self.evaluations,
            step_ms=self.times[plan.method]["step_ms"],
        )

    def make(self, plans: Sequence[Plan]) -> bool:
        """Makes the runs that the log lacks.

        Args:
            plans: the runs.

        Returns:
            Whether the log has all of them; False when the time is over.
        """
        for number, plan in enumerate(plans, start=1):
            if self.done(plan) is None:
                if self.tables_only or time.monotonic() > self.deadline:
                    return False
                result = self._run(plan)
                curve = json.loads(str(result["curve"]))
                shown = result["error"] or f"loss {curve[-1][1]:.4f} after {result['steps']} steps"
                print(
                    f"{number}/{len(plans)} {plan.method} {plan.point} seed {plan.seed}: {shown}", flush=True
                )
        return True

    def _run(self, plan: Plan) -> dict[str, object]:
        step_ms = self.times[plan.method]["step_ms"]
        command = [sys.executable, "-m", "benchmarks.transformers.train"]
        command += ["--recipe", str(ROOT / recipe_of(self.task, plan.method))]
        settings = settings_of(self.task, plan.method, self.settings)
        for setting in (*settings, *plan.point.split(), f"seed={plan.seed}"):
            command += ["--set", setting]
        steps = steps_in(plan.budget, float(step_ms) / 1000, self.evaluations)
        command += ["--steps", str(steps), "--evaluations", str(self.evaluations)]
        command += [] if self.data_dir is None else ["--data-dir", str(self.data_dir.resolve())]
        timeout = max(SLOWEST * plan.budget, LEAST_TIMEOUT)
        row: dict[str, object] = {"steps": 0, "curve": []}
        try:
            run = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired:
            row["error"] = f"not finished after {timeout:g} s"
        else:
            if run.returncode == 0:
                row.update(json.loads(run.stdout.strip().splitlines()[-1]))
            else:
                row["error"] = error_line(run.stderr, run.returncode)
        described = describe_run()
        row |= {
            "method": plan.method,
            "point": plan.point,
            "settings": " ".join(self.settings),
            "seed": plan.seed,
            "budget": f"{plan.budget:g}",
            "evaluations": self.evaluations,
            "step_ms": step_ms,
            "curve": json.dumps(row["curve"]),
            "commit": described["commit"],
            "date": described["date"],
            "processor": described["machine"]["processor"],
            "cpus": described["machine"]["cpus"],
        }
        self.log.append(row)
        return row


def trials(methods: Sequence[str], budget: float) -> Iterator[Plan]:
    """The grid, methods taking turns."""
    columns = [[Plan(method, point, 1, budget) for point in METHODS[method].points()] for method in methods]
    return itertools.chain.from_iterable(zip(*columns))


def write_tables(runner: Runner, task: str, methods: Sequence[str], tried: float, final: float) -> None:
    """Writes OUTPUT/TASK.md from the log.

    Args:
        runner: has the log.
        task: the task.
        methods: the methods.
        tried: the budget of a trial in seconds.
        final: the budget of a final run.
    """
    settings = " ".join(runner.settings)
    wanted = settings, str(runner.evaluations)
    rows = [row for row in runner.log.rows() if (row["settings"], row["evaluations"]) == wanted]
    times = runner.times
    rows = [row for row in rows if row["method"] in methods]
    rows = [row for row in rows if row["step_ms"] == times[row["method"]]["step_ms"]]
    grid = [row for row in rows if row["budget"] == f"{tried:g}" and row["seed"] == "1"]
    best = best_points(grid)
    finals = {
        method: [
            row
            for row in rows
            if (row["method"], row["point"], row["budget"]) == (method, point, f"{final:g}")
        ]
        for method, point in best.items()
    }
    finals = {method: own for method, own in finals.items() if own}
    lines = [f"# {task}", ""]
    if finals:
        lines += [f"Best point of each grid, {final:g} s of training per seed.", ""]
        lines += [*clock_table(finals, METRICS.get(task, "accuracy"), times), ""]
    lines += [
        f"All points, {tried:g} s of training, seed 1. Settings: {settings or 'none'}.",
        "",
        *grid_table(grid),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    runner.log.path.with_suffix(".md").write_text(text, encoding="utf-8")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transformers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument(
        "--methods",
        default=DEFAULT_METHODS,
        type=known_methods,
        help=f"default: %(default)s; known: {', '.join(METHODS)}",
    )
    parser.add_argument("--seconds", type=float, required=True, help="seconds of training per trial")
    parser.add_argument("--final-seconds", type=float, help="of the best points (default: as a trial)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the best points (default: 3)")
    parser.add_argument("--evaluations", type=int, default=10, help="per run (default: 10)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override the recipes"
    )
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of CIFAR-10")
    parser.add_argument("--max-hours", type=float, default=1e6, help="start no run after so many hours")
    parser.add_argument("--tables-only", action="store_true", help="make no run")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tunes, trains the best points and writes the tables."""
    parsed = parse_arguments(arguments)
    tried: float = parsed.seconds
    final: float = tried if parsed.final_seconds is None else parsed.final_seconds
    runner = Runner(parsed)
    tuned = runner.make(list(trials(parsed.methods, tried)))
    if tuned:
        best = best_points([row for plan in trials(parsed.methods, tried) if (row := runner.done(plan))])
        runner.make(
            [
                Plan(method, point, seed, final)
                for seed in range(1, parsed.seeds + 1)
                for method, point in best.items()
            ]
        )
    write_tables(runner, parsed.task, parsed.methods, tried, final)
    return 0


if __name__ == "__main__":
    sys.exit(main())
