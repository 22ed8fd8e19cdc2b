"""The runs of a comparison: each is a process of its own and a line of the log."""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison.budget import Budget
from benchmarks.comparison.step_times import step_times_log
from benchmarks.comparison.tasks import ROOT, TASKS, setup_of
from benchmarks.machine import describe_run
from benchmarks.support.run_log import RunLog, error_of_run

Row = Mapping[str, str]
KEY = ("method", "point", "settings", "seed", "budget", "evaluations", "step_ms", "split", "setup")
COLUMNS = (*KEY, "warm_up_seconds", "steps", "curve", "error", "commit", "date", "processor", "cpus")
# A run takes at most so many times its budget, or so many seconds per epoch, with evaluation, compilation and
# other programs.
SLOWEST = 20
SLOWEST_EPOCH = 3600
LEAST_TIMEOUT = 3600


@dataclass(frozen=True)
class Plan:
    """A run to make.

    Attributes:
        method: the method.
        point: a point of its grid.
        seed: the seed.
        budget: how long to train.
        split: what it is evaluated on, "validation" or "test".
        evaluations: how many times.
    """

    method: str
    point: str
    seed: int
    budget: Budget
    split: str
    evaluations: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.method} {self.point} seed {self.seed}, {self.budget}"

    @property
    def timeout(self) -> float:
        """The most seconds that it takes."""
        slowest = SLOWEST if self.budget.unit == "s" else SLOWEST_EPOCH
        return max(slowest * self.budget.amount, LEAST_TIMEOUT)


def trials(task: str, methods: Sequence[str], budget: Budget, evaluations: int) -> Iterator[Plan]:
    """The grid, methods taking turns, so that an interrupted tuning has as many points of each."""
    chosen = TASKS[task]
    columns = [
        [
            Plan(method, point, 1, budget, chosen.trial_split, evaluations)
            for point in chosen.methods[method].points()
        ]
        for method in methods
    ]
    return itertools.chain.from_iterable(zip(*columns))


def finals(best: Mapping[str, str], budgets: Sequence[Budget], seeds: int, evaluations: int) -> list[Plan]:
    """The runs of the best points, methods taking turns.

    Args:
        best: the point by method.
        budgets: how long to train; each in turn.
        seeds: the number of seeds.
        evaluations: evaluations per run.

    Returns:
        The runs. They train on all training images: what tuning held out is for choosing the point alone,
        and published errors are those of networks that saw all of them.
    """
    return [
        Plan(method, point, seed, budget, "test", evaluations)
        for budget in budgets
        for seed in range(1, seeds + 1)
        for method, point in best.items()
    ]


def train_command(
    task: str,
    method: str,
    settings: Sequence[str],
    *,
    split: str,
    budget: Budget,
    evaluations: int,
    times: Mapping[str, str],
    data_dir: Path | None,
) -> list[str]:
    """The command of one run, whose process prints its result as JSON in the last line.

    Args:
        task: the task.
        method: the method.
        settings: overrides of the recipe.
        split: what it is evaluated on.
        budget: how long to train.
        evaluations: how many times to evaluate.
        times: "step_ms" and "warm_up_seconds" of the method.
        data_dir: the folder of the data, if the task needs one.

    Returns:
        The program and its arguments.
    """
    command = [sys.executable, "-m", "benchmarks.comparison.train", "--task", task]
    command += ["--method", method, "--split", split]
    command += [part for setting in settings for part in ("--set", setting)]
    command += ["--budget", str(budget).replace(" ", ""), "--evaluations", str(evaluations)]
    command += ["--step-ms", times["step_ms"], "--warm-up-seconds", times["warm_up_seconds"]]
    return command + ([] if data_dir is None else ["--data-dir", str(data_dir.resolve())])


class Runner:
    """Makes runs, unless the log has them.

    Args:
        arguments: the command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.task: str = arguments.task
        self.settings: list[str] = arguments.set
        self.data_dir: Path | None = arguments.data_dir
        self.log = RunLog(arguments.output / f"{self.task}.csv", COLUMNS, KEY)
        self.deadline = time.monotonic() + 3600 * arguments.max_hours
        self.tables_only: bool = arguments.tables_only
        times = step_times_log(arguments.output, self.task)
        found = {
            name: times.find(
                method=name,
                settings=" ".join(self.settings),
                setup=setup_of(self.task, name, self.settings, tuned=False),
            )
            for name in arguments.methods
        }
        self.times = {name: row for name, row in found.items() if row is not None}
        missing = [name for name, row in found.items() if row is None]
        if missing:
            raise SystemExit(
                f"no step time of {', '.join(missing)}: first run python -m "
                "benchmarks.comparison.step_times with the same --task, --set, --methods and --output"
            )

    def key(self, plan: Plan) -> dict[str, object]:
        """What identifies a run in the log."""
        return {
            "method": plan.method,
            "point": plan.point,
            "settings": " ".join(self.settings),
            "seed": plan.seed,
            "budget": plan.budget.key,
            "evaluations": plan.evaluations,
            "step_ms": self.times[plan.method]["step_ms"],
            "split": plan.split,
            "setup": setup_of(self.task, plan.method, [*self.settings, *plan.point.split()]),
        }

    def done(self, plans: Sequence[Plan]) -> list[Row]:
        """The lines of the runs that were made."""
        found = [self.log.find(**self.key(plan)) for plan in plans]
        return [row for row in found if row is not None]

    def make(self, plans: Sequence[Plan]) -> bool:
        """Makes the runs that the log lacks.

        Args:
            plans: the runs.

        Returns:
            Whether the log has all of them; False when the time is over.

        Raises:
            SystemExit: a signal ended a run, or it could not read its data.
        """
        for number, plan in enumerate(plans, start=1):
            if not self.done([plan]):
                if self.tables_only or time.monotonic() > self.deadline:
                    return False
                result = self._run(plan)
                curve = json.loads(str(result["curve"]))
                shown = result["error"] or f"loss {curve[-1][1]:.4f} after {result['steps']} steps"
                print(f"{number}/{len(plans)} {plan.name}: {shown}", flush=True)
        return True

    def _run(self, plan: Plan) -> dict[str, object]:
        times = self.times[plan.method]
        command = train_command(
            self.task,
            plan.method,
            [*self.settings, *plan.point.split(), f"seed={plan.seed}"],
            split=plan.split,
            budget=plan.budget,
            evaluations=plan.evaluations,
            times=times,
            data_dir=self.data_dir,
        )
        row: dict[str, object] = {"steps": 0, "curve": []}
        try:
            run = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=plan.timeout
            )
        except subprocess.TimeoutExpired:
            row["error"] = f"not finished after {plan.timeout:g} s"
        else:
            if run.returncode == 0:
                row |= json.loads(run.stdout.strip().splitlines()[-1])
            else:
                row["error"] = error_of_run(plan.name, run.stderr, run.returncode)
        described = describe_run()
        row |= {
            **self.key(plan),
            "warm_up_seconds": times["warm_up_seconds"],
            "curve": json.dumps(row["curve"]),
            "commit": described["commit"],
            "date": described["date"],
            "processor": described["machine"]["processor"],
            "cpus": described["machine"]["cpus"],
        }
        self.log.append(row)
        return row
