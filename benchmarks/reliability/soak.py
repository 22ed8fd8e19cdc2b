"""Long runs: how much memory each step adds, compared with nn.Momentum."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.tally import Tally

ROOT = Path(__file__).resolve().parents[2]
METHODS = ("KFAC", "SKFAC", "SPNGD")
REFERENCE = "Momentum"
# Steps by mode.
STEPS = {"graph": 20_000, "pynative": 2_000}
# Bytes per step that an optimizer may add to nn.Momentum's.
LIMIT = 1024
# Memory is read so many times per run. The first quarter fills MindSpore's pools and is left out.
READS = 40


def growth(steps: Sequence[float], sizes: Sequence[float]) -> float:
    """Least-squares slope of the memory after the first quarter of the run.

    Args:
        steps: the steps at which memory was read.
        sizes: the bytes.

    Returns:
        Bytes per step.
    """
    first = len(steps) // 4
    return float(np.polyfit(np.array(steps[first:]), np.array(sizes[first:]), 1)[0])


def resident_bytes() -> int:
    """The memory of this process that is in use (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def train(method: str, mode: str, steps: int) -> dict[str, Any]:
    """Trains a small network and reads the memory of the process.

    Args:
        method: an optimizer of ``ms_kfac``, or "Momentum".
        mode: "graph" or "pynative".
        steps: number of steps.

    Returns:
        The steps and bytes of each reading, and whether the last loss is finite.
    """
    from model_zoo.common.environment import limit_onednn

    limit_onednn("CPU")
    import mindspore as ms
    from mindspore import nn

    import ms_kfac

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    ms.set_seed(1)
    network = nn.SequentialCell(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dense(64, 10))
    if method == REFERENCE:
        optimizer = nn.Momentum(network.trainable_params(), 0.01, 0.9)
    else:
        options = {"factor_interval": 10, "inverse_interval": 100} if method != "SPNGD" else {}
        optimizer = getattr(ms_kfac, method)(network, 0.01, **options)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer).set_train()
    generator = np.random.default_rng(1)
    read: list[tuple[int, int]] = []
    loss = np.nan
    for done in range(1, steps + 1):
        images = generator.standard_normal((8, 1, 4, 4), dtype=np.float32)
        labels = generator.integers(0, 10, 8).astype(np.int32)
        loss = float(step(ms.Tensor(images), ms.Tensor(labels)).asnumpy())
        if done % max(steps // READS, 1) == 0:
            read.append((done, resident_bytes()))
    return {
        "steps": [at for at, _ in read],
        "bytes": [size for _, size in read],
        "finite": bool(np.isfinite(loss)),
    }


def run(method: str, mode: str, steps: int) -> dict[str, Any]:
    """Trains in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.reliability.soak", method, mode, str(steps)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if finished.returncode:
        return {"error": (finished.stderr.strip().splitlines() or [str(finished.returncode)])[-1]}
    result: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return result


def soak(share: float = 1.0) -> list[Tally]:
    """Runs all methods in both modes.

    Args:
        share: the share of the steps to run.

    Returns:
        One line per mode. A method holds if its steps add less than 1 KiB to what ``nn.Momentum``'s add.
    """
    tallies = []
    for mode, most in STEPS.items():
        steps = max(round(most * share), READS)
        found = {method: run(method, mode, steps) for method in (REFERENCE, *METHODS)}
        failures = [f"{method}: {result['error']}" for method, result in found.items() if "error" in result]
        grown = {
            method: growth(result["steps"], result["bytes"])
            for method, result in found.items()
            if "error" not in result
        }
        reference = grown.get(REFERENCE, 0.0)
        for method in METHODS:
            more = grown.get(method, reference) - reference
            if more >= LIMIT:
                failures.append(f"{method}: {more:.0f} bytes per step beyond nn.Momentum's")
            if method in grown and not found[method]["finite"]:
                failures.append(f"{method}: the loss is not finite")
        note = ", ".join(f"{method} {size:.0f} B" for method, size in grown.items())
        tallies.append(
            Tally(
                f"soak, {steps:,} steps, {mode} mode",
                len(METHODS),
                len(METHODS) - len({text.split(":")[0] for text in failures} & set(METHODS)),
                note=f"growth per step: {note}",
                failures=failures,
            )
        )
    return tallies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.soak", description=__doc__)
    parser.add_argument("method", choices=(REFERENCE, *METHODS))
    parser.add_argument("mode", choices=STEPS)
    parser.add_argument("steps", type=int)
    asked = parser.parse_args()
    print(json.dumps(train(asked.method, asked.mode, asked.steps)))
