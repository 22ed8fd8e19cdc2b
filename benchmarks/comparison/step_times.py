"""Measures the seconds per step of every method, in turn, on an idle machine.

    python -m benchmarks.comparison.step_times --task gpt_stdlib

The comparison turns seconds into steps by these times. Runs can then be spread over hours, and other programs
don't disturb them. All methods train in one process: each round trains every method for as many steps as its
inverses' interval, so that the cost of refreshes is in the mean. OUTPUT/TASK_step_times.csv has one line per
method.

The first round has the refreshes of the warm-up, one per step at first. The step time is the median of the
later rounds; what the first round takes beyond it is warm_up_seconds, which every run pays once.

The steps are the first of a training. SPNGD and THOR refresh more rarely later on, so their times are upper
bounds.

Every step is timed in a graph of more than 100 operators, see benchmarks/support/large_graph.py. --as-is
times it as it is.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison.command_line import parse, shared_options
from benchmarks.comparison.tasks import recipe_of, settings_of, setup_of
from benchmarks.support.run_log import RunLog

KEY = ("method", "settings", "setup")
COLUMNS = (
    "method",
    "settings",
    "step_ms",
    "least_ms",
    "largest_ms",
    "warm_up_seconds",
    "compile_seconds",
    "commit",
    "date",
    "processor",
    "cpus",
    "setup",
)


def step_times_log(folder: Path, task: str) -> RunLog:
    """The file of step times of a task."""
    return RunLog(folder / f"{task}_step_times.csv", COLUMNS, KEY)


def time_in_turn(
    steps: Mapping[str, Callable[[], object]], length: int, rounds: int
) -> dict[str, tuple[float, list[float]]]:
    """Times functions in turn.

    Args:
        steps: one function per name. It returns when its step is done.
        length: calls per name and round.
        rounds: the number of rounds.

    Returns:
        For each name, the seconds of its first call, and its mean seconds per call in each round.
    """
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name, step in steps.items():
        start = time.perf_counter()
        step()
        first[name] = time.perf_counter() - start
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(length):
                step()
            times[name].append((time.perf_counter() - start) / length)
    return {name: (first[name], times[name]) for name in steps}


def _step_of(recipe: Any, data_dir: Path | None, as_is: bool) -> Callable[[], object]:
    from benchmarks.comparison.train import endless_batches
    from benchmarks.support.large_graph import LargeGraph
    from model_zoo.common.data.pipelines import load_data
    from model_zoo.common.factory import build
    from model_zoo.common.schedules import Constant
    from model_zoo.common.training import start_mindspore

    start_mindspore(recipe, "CPU")
    data = load_data(recipe.data, data_dir)
    train_network = build(replace(recipe, schedule=Constant()), data.classes, 1).model.train_network
    if not as_is:
        train_network = LargeGraph(train_network)
    batches: Iterator[Any] = endless_batches(recipe, data)

    def step() -> None:
        loss = float(train_network(*next(batches)).asnumpy())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{recipe.optimizer.name}: the loss is {loss}, and skipped steps cost less"
            )

    return step


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = shared_options("python -m benchmarks.comparison.step_times", __doc__)
    parser.add_argument(
        "--steps", type=int, default=100, help="per method and round (default: 100, the recipes' interval)"
    )
    parser.add_argument("--rounds", type=int, default=4, help="at least 2 (default: 4)")
    parser.add_argument("--as-is", action="store_true", help="do not make the graphs larger")
    parsed = parse(parser, arguments)
    if parsed.rounds < 2:
        parser.error(f"--rounds: must be at least 2, got {parsed.rounds}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the step times."""
    from model_zoo.common.environment import limit_onednn

    limit_onednn("CPU")
    from benchmarks.machine import describe_run
    from model_zoo.common.recipe import load_recipe

    parsed = parse_arguments(arguments)
    steps = {
        method: _step_of(
            load_recipe(recipe_of(parsed.task, method), settings_of(parsed.task, method, parsed.set)),
            parsed.data_dir,
            parsed.as_is,
        )
        for method in parsed.methods
    }
    described = describe_run()
    log = step_times_log(parsed.output, parsed.task)
    for method, (first, times) in time_in_turn(steps, parsed.steps, parsed.rounds).items():
        later = times[1:]
        middle = statistics.median(later)
        warm_up = max(times[0] - middle, 0.0) * parsed.steps
        log.append(
            {
                "method": method,
                "settings": " ".join(parsed.set),
                "step_ms": f"{1000 * middle:.2f}",
                "least_ms": f"{1000 * min(later):.2f}",
                "largest_ms": f"{1000 * max(later):.2f}",
                "warm_up_seconds": f"{warm_up:.2f}",
                "compile_seconds": f"{first - middle:.1f}",
                "commit": described["commit"],
                "date": described["date"],
                "processor": described["machine"]["processor"],
                "cpus": described["machine"]["cpus"],
                "setup": setup_of(parsed.task, method, parsed.set, tuned=False),
            }
        )
        print(f"{method}: {1000 * middle:.1f} ms ({1000 * min(later):.1f} to {1000 * max(later):.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
