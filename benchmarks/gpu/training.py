"""Training steps in MindSpore on a GPU: K-FAC and SMKFAC over ``nn.Momentum``, interleaved, in graph mode.

``MS_KFAC_NATIVE`` chooses between native kernels and composed operators, as everywhere. The mean over a
period of the intervals is put together from the medians of the kinds of steps; the record holds every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import ms_kfac
from benchmarks.gpu.bring_up import SMALL_TASKS, TASKS, Task, in_turn, seconds_of_step, start
from benchmarks.gpu.record import Record, part_parser
from benchmarks.step_kinds import kind_of_step, mean_over_a_period, seconds_by_kind

# Name: method, intervals of statistics and of inverses.
OPTIMIZERS: dict[str, tuple[str, tuple[int, int]]] = {
    "momentum": ("", (0, 0)),
    "kfac (10:100)": ("KFAC", (10, 100)),
    "smkfac (100:100)": ("SMKFAC", (100, 100)),
    "kfac (1:1)": ("KFAC", (1, 1)),
}
# Steps of all but this are interleaved for as long as the time goes, and those of this after that.
EVERY_STEP = "kfac (1:1)"
# A first refresh is that of step 0; from 100 rounds on there is a second one.
MOST_ROUNDS, ROUNDS_OF_EVERY_STEP = 301, 15
WARM_UP_STEPS = 2
# Compiling may take so much of the time, and interleaved steps all but so much of what is left.
SHARE_OF_COMPILING, SHARE_OF_EVERY_STEP = 0.7, 0.2


def build_step(name: str, task: Task) -> Callable[[], float]:
    """A training step.

    Args:
        name: of ``OPTIMIZERS``.
        task: the network and its batches.

    Returns:
        A function that takes one step and returns its seconds.
    """
    ms.set_seed(1)
    network = task.build()
    method, (factor_interval, inverse_interval) = OPTIMIZERS[name]
    if method:
        optimizer: nn.Cell = getattr(ms_kfac, method)(
            network, 0.01, damping=0.1, factor_interval=factor_interval, inverse_interval=inverse_interval
        )
    else:
        optimizer = nn.Momentum(network.trainable_params(), 0.01, 0.9)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
    step.set_train()
    turns = in_turn(task.batches())
    return lambda: seconds_of_step(step, turns)


def compile_steps(record: Record, task: Task, end: float) -> dict[str, Callable[[], float]]:
    """Builds every optimizer's step and takes its first ones, as far as the time goes.

    Args:
        record: where to.
        task: the network and its batches.
        end: no further step is compiled after this, on the monotonic clock.

    Returns:
        Those that run.
    """
    ready: dict[str, Callable[[], float]] = {}
    for name in OPTIMIZERS:
        if time.monotonic() > end:
            record.add("out of time", before=f"compiling {name}")
            break
        with record.attempt(name):
            take = build_step(name, task)
            first = [take() for _ in range(WARM_UP_STEPS)]
            record.add("first steps", optimizer=name, seconds=first)
            ready[name] = take
    return ready


def measure(record: Record, take: dict[str, Callable[[], float]], rounds: int, end: float) -> None:
    """Rounds of one step of each until the time ends.

    Args:
        record: where to.
        take: the steps; "momentum" among them.
        rounds: at most.
        end: on the monotonic clock.
    """
    taken: dict[str, list[float]] = {name: [] for name in take}
    for turn in range(rounds):
        if time.monotonic() > end:
            break
        # Every other round goes backwards: nobody always comes after the same neighbour.
        for name in list(take)[:: 1 if turn % 2 == 0 else -1]:
            taken[name].append(take[name]())
    if not taken["momentum"]:
        record.add("out of time", before=f"steps of {', '.join(take)}")
        return
    base = np.asarray(taken["momentum"])
    for name, seconds in taken.items():
        record.add(
            "steps", optimizer=name, **told_of(seconds, base, OPTIMIZERS[name][1]), raw_seconds=seconds
        )


def told_of(seconds: list[float], base: np.ndarray, intervals: tuple[int, int]) -> dict[str, Any]:
    """What is told of one optimizer's steps, beside their seconds.

    Args:
        seconds: of its steps, after those that warmed it up.
        base: those of ``nn.Momentum``, round by round.
        intervals: of statistics and of inverses.

    Returns:
        Medians and numbers of the kinds, quartiles of the paired ratios of each kind, the mean over a period
        and its ratio.
    """
    kinds = [kind_of_step(index + WARM_UP_STEPS, intervals) for index in range(len(seconds))]
    by_kind = seconds_by_kind(seconds, kinds)
    ratios = seconds_by_kind((np.asarray(seconds) / base).tolist(), kinds)
    mean = mean_over_a_period(by_kind, intervals)
    return {
        "mean_over_a_period_seconds": mean,
        "ratio": None if mean is None else mean / float(np.median(base)),
        "median_seconds": {kind: float(np.median(chosen)) for kind, chosen in by_kind.items()},
        "steps": {kind: len(chosen) for kind, chosen in by_kind.items()},
        "paired_ratio_quartiles": {
            kind: np.percentile(chosen, [25, 50, 75]).tolist() for kind, chosen in ratios.items()
        },
    }


def main() -> None:
    """Measure one network."""
    parser = part_parser(__doc__)
    parser.add_argument("--network", choices=tuple(TASKS), required=True)
    arguments = parser.parse_args()
    began = time.monotonic()
    record = Record(arguments.record, dry_run=arguments.dry_run)
    start(record)
    task = (SMALL_TASKS if arguments.dry_run else TASKS)[arguments.network]
    record.add("task", network=arguments.network, images=task.images)
    take = compile_steps(record, task, began + SHARE_OF_COMPILING * arguments.seconds)
    if "momentum" in take:
        end = began + arguments.seconds
        share = SHARE_OF_EVERY_STEP * (end - time.monotonic())
        interleaved = {name: step for name, step in take.items() if name != EVERY_STEP}
        measure(record, interleaved, 3 if arguments.dry_run else MOST_ROUNDS, end - share)
        if EVERY_STEP in take:
            pair = {name: take[name] for name in ("momentum", EVERY_STEP)}
            measure(record, pair, 3 if arguments.dry_run else ROUNDS_OF_EVERY_STEP, end)
    record.add("kernels after", status=ms_kfac.kernels.status().splitlines())


if __name__ == "__main__":
    main()
