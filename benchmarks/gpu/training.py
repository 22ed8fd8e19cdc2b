"""Training steps in MindSpore on a GPU: K-FAC and SMKFAC over ``nn.Momentum``, interleaved, in graph mode.

``MS_KFAC_NATIVE`` selects native kernels or fallbacks, as everywhere. Refreshes come at short intervals, so
that a short run has many steps of each kind: ordinary, with statistics, with inverses. Means at the usual
intervals combine the medians of the kinds, because the cost of a kind does not depend on the interval. The
record holds every step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

import ms_kfac
from benchmarks.gpu.bring_up import SMALL_TASKS, TASKS, Task, in_turn, seconds_of_step, start
from benchmarks.gpu.record import Record, part_parser
from benchmarks.step_kinds import kind_of_step, mean_over_a_period, seconds_by_kind
from ms_kfac.kernels.native_library import SWITCH
from ms_kfac.kernels.operator import is_native
from ms_kfac.kernels.registry import REGISTRY

Intervals = tuple[int, int]


@dataclass(frozen=True)
class MeasuredOptimizer:
    """A measured optimizer.

    Attributes:
        method: a class of ``ms_kfac``; empty for ``nn.Momentum``.
        run_intervals: intervals of statistics and inverses during the measurement.
        reported_intervals: intervals for which a mean is reported.
    """

    method: str = ""
    run_intervals: Intervals = (0, 0)
    reported_intervals: tuple[Intervals, ...] = ()


OPTIMIZERS = {
    "momentum": MeasuredOptimizer(),
    "kfac": MeasuredOptimizer("KFAC", (3, 9), ((10, 100), (100, 100), (1, 1))),
    "smkfac": MeasuredOptimizer("SMKFAC", (9, 9), ((100, 100), (1, 1))),
}
MOST_ROUNDS, DRY_ROUNDS = 301, 8
WARM_UP_STEPS = 2
# An optimizer is compiled only if this many seconds remain to measure it.
LEAST_OF_MEASURING = 8.0


def build_optimizer(name: str, network: nn.Cell) -> nn.Cell:
    """Creates an optimizer of ``OPTIMIZERS`` for a network."""
    measured = OPTIMIZERS[name]
    if not measured.method:
        return nn.Momentum(network.trainable_params(), 0.01, 0.9)
    factor_interval, inverse_interval = map(ms_kfac.FixedInterval, measured.run_intervals)
    return getattr(ms_kfac, measured.method)(
        network, 0.01, damping=0.1, factor_interval=factor_interval, inverse_interval=inverse_interval
    )


def build_step(name: str, task: Task) -> Callable[[], float]:
    """Builds a training step.

    Args:
        name: a key of ``OPTIMIZERS``.
        task: the network and its batches.

    Returns:
        A function that takes one step and returns the seconds.
    """
    ms.set_seed(1)
    network = task.build()
    optimizer = build_optimizer(name, network)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
    step.set_train()
    turns = in_turn(task.batches())
    return lambda: seconds_of_step(step, turns)


def measure_all(record: Record, task: Task, end: float) -> None:
    """Compiles and measures one optimizer after the other, interleaved with ``nn.Momentum``.

    Each optimizer is measured before the next one is compiled, so that a slow compilation does not cost the
    results of the others.

    Args:
        record: the record to write to.
        task: the network and its batches.
        end: the end, on the monotonic clock.
    """
    longest, ready = 0.0, {}
    for index, name in enumerate(OPTIMIZERS):
        began = time.monotonic()
        if began + longest + LEAST_OF_MEASURING > end:
            record.add("out of time", before=f"compiling {name}")
            return
        with record.attempt(name):
            take = build_step(name, task)
            first = [take() for _ in range(WARM_UP_STEPS)]
            record.add("first steps", optimizer=name, seconds=first)
            ready[name] = take
        if "momentum" not in ready:
            return
        longest = max(longest, time.monotonic() - began)
        if name in ready and name != "momentum":
            others = len(OPTIMIZERS) - index - 1
            pair = {"momentum": ready["momentum"], name: take}
            measure(record, pair, time.monotonic() + share(end - time.monotonic(), others, longest))


def share(remaining: float, others: int, longest: float) -> float:
    """The seconds to measure the optimizer just compiled.

    Args:
        remaining: seconds until the end.
        others: number of remaining optimizers.
        longest: seconds of the longest compilation so far.

    Returns:
        An equal share of the time left after compiling the others, at least the share of the last one.
    """
    equal = (remaining - others * longest) / (others + 1)
    return min(max(equal, LEAST_OF_MEASURING), remaining)


def measure(record: Record, take: Mapping[str, Callable[[], float]], end: float) -> None:
    """Takes rounds of one step each until the end.

    Args:
        record: the record to write to.
        take: the steps by name, including "momentum".
        end: the end, on the monotonic clock.
    """
    taken: dict[str, list[float]] = {name: [] for name in take}
    for turn in range(DRY_ROUNDS if record.dry_run else MOST_ROUNDS):
        if time.monotonic() > end:
            break
        # Every other round is reversed, so that no step always follows the same one.
        for name in list(take)[:: 1 if turn % 2 == 0 else -1]:
            taken[name].append(take[name]())
    if not taken["momentum"]:
        record.add("out of time", before=f"steps of {', '.join(take)}")
        return
    (compared,) = (name for name in take if name != "momentum")
    for name, seconds in taken.items():
        summary = summarize_steps(seconds, taken["momentum"], OPTIMIZERS[name])
        intervals = OPTIMIZERS[name].run_intervals
        record.add(
            "steps",
            optimizer=name,
            compared_optimizer=compared,
            intervals=intervals,
            **summary,
            raw_seconds=seconds,
        )


def summarize_steps(seconds: list[float], base: list[float], measured: MeasuredOptimizer) -> dict[str, Any]:
    """Summarizes the steps of one optimizer.

    Args:
        seconds: the times of its steps, without warm-up.
        base: the times of ``nn.Momentum``, round by round.
        measured: the optimizer.

    Returns:
        Medians and counts of the step kinds, quartiles of the paired ratios per kind, and per pair of
        intervals the mean and its ratio; None if a step kind is missing.
    """
    kinds = [kind_of_step(index + WARM_UP_STEPS, measured.run_intervals) for index in range(len(seconds))]
    by_kind = seconds_by_kind(seconds, kinds)
    ratios = seconds_by_kind((np.asarray(seconds) / np.asarray(base)).tolist(), kinds)
    means = {
        f"{pair[0]}:{pair[1]}": mean_over_a_period(by_kind, pair) for pair in measured.reported_intervals
    }
    return {
        "median_seconds": {kind: float(np.median(chosen)) for kind, chosen in by_kind.items()},
        "steps": {kind: len(chosen) for kind, chosen in by_kind.items()},
        "paired_ratio_quartiles": {
            kind: np.percentile(chosen, [25, 50, 75]).tolist() for kind, chosen in ratios.items()
        },
        "mean_seconds": means,
        "mean_ratio": {
            pair: None if mean is None else mean / float(np.median(base)) for pair, mean in means.items()
        },
    }


def main() -> int:
    """Measures one network.

    Returns:
        1 if native kernels are requested but missing, because the fallbacks would be measured instead.
    """
    parser = part_parser(__doc__)
    parser.add_argument("--network", choices=tuple(TASKS), required=True)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    record = Record(arguments.record, dry_run=arguments.dry_run)
    start(record)
    if os.environ.get(SWITCH, "1") != "0" and not any(map(is_native, REGISTRY)):
        record.add("failure", of="native kernels", message=ms_kfac.kernels.status())
        return 1
    task = (SMALL_TASKS if arguments.dry_run else TASKS)[arguments.network]
    record.add("task", network=arguments.network, images=task.images)
    measure_all(record, task, end)
    record.add("kernels after", status=ms_kfac.kernels.status().splitlines())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
