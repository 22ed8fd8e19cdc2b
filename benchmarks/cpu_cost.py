"""Cost of second-order training over ``nn.Momentum`` on a CPU: steps, peak memory and compilation.

    python benchmarks/cpu_cost.py --data-dir DIR/cifar-10-batches-bin [--steps 200] [--output FILE]

ResNet-20 on real CIFAR-10, graph mode. Steps of all optimizers are interleaved in one process, one step of
each per round, so that changes of the machine's speed affect all equally. The mean step time combines the
medians of the step kinds (ordinary, with statistics, with statistics and inverses) with their frequencies.
The plain ratio of total seconds is reported too. Peak memory and compilation time are measured in separate
processes, several per optimizer, in alternation.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import nn  # noqa: E402

import ms_kfac  # noqa: E402
from benchmarks.machine import describe_run  # noqa: E402
from benchmarks.step_kinds import kind_of_step, mean_of_medians, seconds_by_kind  # noqa: E402
from model_zoo.common.data import cifar10  # noqa: E402
from model_zoo.common.networks import create_network  # noqa: E402

# Optimizer name: method, and intervals of statistics and inverses; in table order.
OPTIMIZERS: dict[str, tuple[str, tuple[int, int]]] = {
    "momentum": ("", (0, 0)),
    "kfac (10:100)": ("KFAC", (10, 100)),
    "kfac (100:100)": ("KFAC", (100, 100)),
    "smkfac (100:100)": ("SMKFAC", (100, 100)),
    "kfac (1:1)": ("KFAC", (1, 1)),
}
BATCHES = 8
WARM_UP_STEPS = 2
ISOLATED_STEPS = 12


def load_batches(data_dir: Path, batch_size: int) -> list[tuple[ms.Tensor, ms.Tensor]]:
    """The first batches of CIFAR-10's training set, normalized."""
    split = cifar10.read_batch(data_dir / cifar10.TRAIN_FILES[0])
    scale = np.asarray(cifar10.DEVIATION, np.float32)
    batches: list[tuple[ms.Tensor, ms.Tensor]] = []
    for start in range(0, BATCHES * batch_size, batch_size):
        taken = slice(start, start + batch_size)
        images = (split.images[taken] - np.asarray(cifar10.MEAN, np.float32)) / scale
        batches.append(
            (ms.Tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), ms.Tensor(split.labels[taken]))
        )
    return batches


def build_step(name: str, batches: list[tuple[ms.Tensor, ms.Tensor]]) -> Callable[[], float]:
    """Builds a training step.

    Args:
        name: a key of ``OPTIMIZERS``.
        batches: used cyclically.

    Returns:
        A function that takes one step, waits for the loss and returns the seconds.
    """
    ms.set_seed(1)
    network = create_network("resnet", depth=20)
    method, intervals = OPTIMIZERS[name]
    if method:
        factor_interval, inverse_interval = map(ms_kfac.FixedInterval, intervals)
        optimizer: nn.Cell = getattr(ms_kfac, method)(
            network, 0.01, damping=0.1, factor_interval=factor_interval, inverse_interval=inverse_interval
        )
    else:
        optimizer = nn.Momentum(network.trainable_params(), 0.01, 0.9)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer)
    step.set_train()
    turns = _in_turn(batches)

    def take_step() -> float:
        images, labels = next(turns)
        start = time.perf_counter()
        step(images, labels).asnumpy()
        return time.perf_counter() - start

    return take_step


def _in_turn(batches: list[tuple[ms.Tensor, ms.Tensor]]) -> Iterator[tuple[ms.Tensor, ms.Tensor]]:
    while True:
        yield from batches


def measure_steps(names: list[str], data_dir: Path, batch_size: int, steps: int) -> dict[str, Any]:
    """Times interleaved steps of several optimizers.

    Args:
        names: keys of ``OPTIMIZERS``, ``momentum`` first.
        data_dir: CIFAR-10's binary files.
        batch_size: images per batch.
        steps: steps per optimizer.

    Returns:
        Per optimizer: the mean in seconds, ratios, quartiles of the paired ratios of ordinary steps, and the
        medians of the step kinds.
    """
    batches = load_batches(data_dir, batch_size)
    take = {name: build_step(name, batches) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(steps + WARM_UP_STEPS):
        for name in names:
            taken[name].append(take[name]())
        if number % 20 == 0:
            print(f"  round {number} of {steps + WARM_UP_STEPS}", file=sys.stderr, flush=True)
    # Step 0 compiles and refreshes, and step 1 warms up: the period starts at step 2 and includes the
    # refreshes at its end.
    first = WARM_UP_STEPS
    result: dict[str, Any] = {}
    base = np.asarray(taken["momentum"][first:])
    for name in names:
        intervals = OPTIMIZERS[name][1]
        seconds = np.asarray(taken[name][first:])
        kinds = [kind_of_step(step + first, intervals) for step in range(len(seconds))]
        by_kind = seconds_by_kind(seconds, kinds)
        mean = mean_of_medians(by_kind)
        commonest = "ordinary" if "ordinary" in by_kind else "inverses"
        paired = (seconds / base)[[k == commonest for k in kinds]]
        result[name] = {
            "mean_of_medians_seconds": mean,
            "ratio": mean / float(np.median(base)),
            "ratio_of_sums": float(seconds.sum() / base.sum()),
            "paired_quartiles": np.percentile(paired, [25, 50, 75]).tolist(),
            "median_seconds": {kind: float(np.median(chosen)) for kind, chosen in by_kind.items()},
            "steps": {kind: len(chosen) for kind, chosen in by_kind.items()},
        }
    return result


def run_isolated(name: str, data_dir: Path, batch_size: int) -> dict[str, float]:
    """Measures one optimizer in this process, a child of :func:`measure_isolated`."""
    take_step = build_step(name, load_batches(data_dir, batch_size))
    first = take_step()
    seconds = [take_step() for _ in range(ISOLATED_STEPS)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"compile_seconds": first - float(np.median(seconds)), "peak_mebibytes": peak}


def measure_isolated(data_dir: Path, batch_size: int, repeats: int) -> dict[str, Any]:
    """Peak memory and compilation, each in its own process.

    Args:
        data_dir: CIFAR-10's binary files.
        batch_size: images per batch.
        repeats: processes per optimizer, in alternation.

    Returns:
        The measurements of every process, and the ratios of the medians to ``momentum``.
    """
    names = ["momentum", "kfac (10:100)", "smkfac (100:100)"]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            command = [sys.executable, __file__, "--isolated", name, "--data-dir", str(data_dir)]
            command += ["--batch-size", str(batch_size)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs[name].append(json.loads(printed.splitlines()[-1]))
    median = {
        name: {key: float(np.median([run[key] for run in taken])) for key in taken[0]}
        for name, taken in runs.items()
    }
    ratios = {
        name: {key: value / median["momentum"][key] for key, value in entry.items()}
        for name, entry in median.items()
    }
    return {"runs": runs, "ratios": ratios}


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of CIFAR-10's binary files")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="rounds of the interleaved steps")
    parser.add_argument("--every-step", type=int, default=20, help="rounds of K-FAC (1:1)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="processes per optimizer for memory and compilation"
    )
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    parser.add_argument("--isolated", choices=tuple(OPTIMIZERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    if arguments.isolated:
        print(json.dumps(run_isolated(arguments.isolated, arguments.data_dir, arguments.batch_size)))
        return
    print(ms_kfac.kernels.status())
    isolated = measure_isolated(arguments.data_dir, arguments.batch_size, arguments.repeats)
    for name, ratios in isolated["ratios"].items():
        print(f"{name:18} " + "  ".join(f"{key} x {value:.3f}" for key, value in ratios.items()), flush=True)
    at_intervals = [name for name in OPTIMIZERS if name != "kfac (1:1)"]
    steps = measure_steps(at_intervals, arguments.data_dir, arguments.batch_size, arguments.steps)
    every = measure_steps(
        ["momentum", "kfac (1:1)"], arguments.data_dir, arguments.batch_size, arguments.every_step
    )
    for name, entry in {**steps, "kfac (1:1)": every["kfac (1:1)"]}.items():
        low, median, high = entry["paired_quartiles"]
        print(
            f"{name:18} {entry['mean_of_medians_seconds'] * 1e3:7.1f} ms per step, x {entry['ratio']:.3f} "
            f"(sums {entry['ratio_of_sums']:.3f}; ordinary steps {median:.3f}, {low:.3f} to {high:.3f})"
        )
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        record = {
            **describe_run(),
            "batch_size": arguments.batch_size,
            "kernels": ms_kfac.kernels.status().splitlines(),
            "isolated": isolated,
            "steps": steps,
            "every_step": every,
        }
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
