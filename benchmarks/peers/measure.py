"""Times one library in one process, or reports the memory of one kind of steps.

    python -m benchmarks.peers.measure --library "kfac-jax" --problem convnet --rounds 20
    python -m benchmarks.peers.measure --library "kfac-jax" --problem convnet --memory everything --steps 2

Prints one JSON object. The second command adds the seconds of its steps, the first of which compiles.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.libraries import LIBRARIES, create_step
from benchmarks.peers.problems import KINDS, create_problem

WARM_UP_STEPS = 4


def times(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times all kinds in turn, so that a change of the machine's speed affects all.

    An untimed step of the kind goes first: threads that a refresh used may still be busy waiting for more.

    Args:
        steps: a step by kind.
        rounds: timed steps of each kind.

    Returns:
        Seconds by kind.
    """
    found: dict[str, list[float]] = {kind: [] for kind in steps}
    for step in steps.values():
        for _ in range(WARM_UP_STEPS):
            step()
    for _ in range(rounds):
        for kind, step in steps.items():
            step()
            start = time.perf_counter()
            step()
            found[kind].append(time.perf_counter() - start)
    return found


def summarize(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and quartiles in milliseconds."""
    summary = {}
    for kind, seconds in found.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(seconds, n=4))
        summary[kind] = {"median": middle, "low": low, "high": high}
    return summary


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    parser.add_argument("--problem", choices=("convnet", "autoencoder"), required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--memory", choices=KINDS, metavar="KIND", help="no times: the peak memory of this kind"
    )
    parser.add_argument("--steps", type=int, default=WARM_UP_STEPS, help="steps for --memory (default: 4)")
    arguments = parser.parse_args()
    problem = create_problem(arguments.problem)
    if arguments.memory:
        step = create_step(arguments.library, problem, arguments.memory)
        seconds = []
        for _ in range(arguments.steps):
            start = time.perf_counter()
            step()
            seconds.append(round(time.perf_counter() - start, 3))
        print(json.dumps({"peak_mib": peak_mib(), "seconds": seconds}))
        return
    kinds = LIBRARIES[arguments.library].kinds
    steps = {kind: create_step(arguments.library, problem, kind) for kind in kinds}
    print(json.dumps(summarize(times(steps, arguments.rounds))))


if __name__ == "__main__":
    main()
