"""What a second kernel thread costs on a tiny network: it should cost nothing.

    python -m benchmarks.thread_overhead [--threads 2] [--units 16] [--steps 400]

An MLP of two layers with K-FAC (1:1), whose kernels all have something to do at each step. One compiled step
runs with 1 and with N kernel threads in turn, so that changes of the machine's speed affect both equally.
Prints both medians, and the median of the paired ratios with its quartiles.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

import ms_kfac
from benchmarks.machine import describe_run
from ms_kfac.kernels.library import library

WARM_UP_STEPS = 20
# Switching between numbers of threads may cost the first step after it.
STEPS_IN_TURN = 10


def build_step(units: int, batch_size: int) -> Callable[[], None]:
    """A compiled training step on random data.

    Args:
        units: width of all layers.
        batch_size: number of samples.

    Returns:
        A function that takes one step and waits for it.
    """
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((batch_size, units)).astype(np.float32))
    y = Tensor(rng.integers(0, units, batch_size).astype(np.int32))
    net = nn.SequentialCell(nn.Dense(units, units, activation="tanh"), nn.Dense(units, units))
    optimizer = ms_kfac.KFAC(net, 0.01, factor_interval=1, inverse_interval=1)
    cell = nn.TrainOneStepCell(nn.WithLossCell(net, nn.CrossEntropyLoss()), optimizer)
    return lambda: cell(x, y).asnumpy()


def measure(step: Callable[[], Any], threads: int, steps: int) -> tuple[list[float], list[float]]:
    """Times a step with 1 and with several kernel threads in turn.

    Args:
        step: takes one step.
        threads: the larger number of threads.
        steps: steps for each number.

    Returns:
        Median seconds of each turn, with 1 thread and with `threads`.
    """
    kernels = library("CPU")
    times: dict[int, list[float]] = {1: [], threads: []}
    for _ in range(WARM_UP_STEPS):
        step()
    for _ in range(max(steps // STEPS_IN_TURN, 1)):
        for count, medians in times.items():
            kernels.set_threads(count)
            turn = []
            for _ in range(STEPS_IN_TURN):
                begin = time.perf_counter()
                step()
                turn.append(time.perf_counter() - begin)
            medians.append(float(np.median(turn)))
    return times[1], times[threads]


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400, help="steps for each number of threads")
    options = parser.parse_args()
    if options.threads < 2:
        parser.error("--threads must be at least 2: it is compared with 1")
    if library("CPU").handle is None:
        parser.error(f"needs the native kernels: {library('CPU').reason}")
    ms.set_context(mode=ms.GRAPH_MODE)
    one, many = measure(build_step(options.units, options.batch_size), options.threads, options.steps)
    low, ratio, high = np.quantile(np.divide(many, one), [0.25, 0.5, 0.75])
    print(describe_run())
    print(f"1 thread: {1e3 * np.median(one):.3f} ms per step")
    print(f"{options.threads} threads: {1e3 * np.median(many):.3f} ms per step")
    print(f"ratio: {ratio:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
