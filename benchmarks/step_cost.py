"""Cost of a K-FAC step relative to an ``nn.Momentum`` step, in one process.

    python benchmarks/step_cost.py [--mode graph|pynative|both] [--batch-size 64] [--steps 20]

ResNet-20 on synthetic images. Three ratios per mode, as medians over interleaved rounds (one step of each per
round, so that changes of the machine's speed affect all equally), with the quartiles of the paired ratios:

* never due: intervals beyond the run, so that taps are closed and inverses stay; the cost of the taps and of
  preconditioning;
* (10:100) and (1:1): factors every 10 steps and inverses every 100, and everything at every step; the mean
  over a period is computed from the medians of the step kinds;
* compilation (graph mode): the first step minus an ordinary one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
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
from model_zoo.common.networks import create_network  # noqa: E402

NEVER = 10**9
WARM_UP_STEPS = 4


def build_step(optimizer: str, batch_size: int) -> Callable[[], None]:
    """Builds a training step on a fixed batch.

    Args:
        optimizer: "momentum", "never" (K-FAC that refreshes at step 0 only), "factors" (factors every step)
            or "all" (inverses too).
        batch_size: images per batch.

    Returns:
        A function that takes one step and waits for the loss.
    """
    ms.set_seed(1)
    rng = np.random.default_rng(1)
    images = ms.Tensor(rng.standard_normal((batch_size, 3, 32, 32), dtype=np.float32))
    labels = ms.Tensor(rng.integers(0, 10, batch_size).astype(np.int32))
    network = create_network("resnet", depth=20)
    if optimizer == "momentum":
        cell: nn.Cell = nn.Momentum(network.trainable_params(), 0.01, 0.9)
    else:
        numbers = {"never": (NEVER, NEVER), "factors": (1, NEVER), "all": (1, 1)}[optimizer]
        # Not plain ints, whose warm-up would add steps of other kinds.
        factors, inverses = map(ms_kfac.FixedInterval, numbers)
        cell = ms_kfac.KFAC(network, 0.01, damping=0.1, factor_interval=factors, inverse_interval=inverses)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), cell)
    step.set_train()

    def take_step() -> None:
        step(images, labels).asnumpy()

    return take_step


def seconds(function: Callable[[], None]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(mode: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Times all four optimizers in one mode.

    Args:
        mode: "graph" or "pynative".
        batch_size: images per batch.
        rounds: interleaved rounds.

    Returns:
        Medians in seconds, and ratios to ``nn.Momentum`` with their quartiles.
    """
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    names = ("momentum", "never", "factors", "all")
    # Discarded, because it includes one-time costs of the process (loading, thread pools).
    build_step("momentum", batch_size)()
    steps = {}
    first = {}
    for name in names:
        steps[name] = build_step(name, batch_size)
        first[name] = seconds(steps[name])
        for _ in range(WARM_UP_STEPS):
            steps[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            times[name].append(seconds(steps[name]))
    median = {name: float(np.median(times[name])) for name in names}
    base = np.asarray(times["momentum"])
    result: dict[str, Any] = {
        "mode": mode,
        "batch_size": batch_size,
        "rounds": rounds,
        "median_seconds": median,
    }
    paired = np.asarray(times["never"]) / base
    result["never_due"] = {
        "ratio": median["never"] / median["momentum"],
        "quartiles": np.percentile(paired, [25, 75]).tolist(),
    }
    factors_extra = median["factors"] - median["never"]
    inverses_extra = median["all"] - median["factors"]
    result["10:100"] = (median["never"] + factors_extra / 10 + inverses_extra / 100) / median["momentum"]
    result["1:1"] = median["all"] / median["momentum"]
    if mode == "graph":
        compile_seconds = {name: first[name] - median[name] for name in ("momentum", "never")}
        result["compile_seconds"] = compile_seconds
        result["compile_ratio"] = compile_seconds["never"] / compile_seconds["momentum"]
    return result


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("graph", "pynative", "both"), default="both")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20, help="interleaved rounds")
    parser.add_argument("--output", type=Path, help="also write the results as JSON")
    arguments = parser.parse_args()
    ms.set_device("CPU")
    results = []
    for mode in ("graph", "pynative") if arguments.mode == "both" else (arguments.mode,):
        result = measure(mode, arguments.batch_size, arguments.steps)
        results.append(result)
        never = result["never_due"]
        low, high = never["quartiles"]
        milliseconds = {name: round(value * 1e3, 1) for name, value in result["median_seconds"].items()}
        print(f"{mode}: ResNet-20, batch {arguments.batch_size}, {arguments.steps} rounds")
        print(f"  median ms per step: {milliseconds}")
        print(f"  never due over nn.Momentum: {never['ratio']:.3f}  (quartiles {low:.3f} to {high:.3f})")
        print(f"  (10:100) over nn.Momentum:  {result['10:100']:.3f}")
        print(f"  (1:1) over nn.Momentum:     {result['1:1']:.3f}")
        if "compile_ratio" in result:
            compiled = {name: round(value, 1) for name, value in result["compile_seconds"].items()}
            print(f"  compilation over nn.Momentum: {result['compile_ratio']:.2f}  (seconds {compiled})")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        record = {**describe_run(), "results": results}
        arguments.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
