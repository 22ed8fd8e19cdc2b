"""A judge of five layers, and steps for it to judge that need no network."""

from __future__ import annotations

from typing import Any

import numpy as np

from ms_kfac.statistics.verification import Verification

LAYERS = ("conv1", "conv2", "mid", "head", "out")
COUNT = len(LAYERS)
# Columns of what the judge is told, as kernels/interface/judge.h numbers them.
PASSES, PERIOD, P, P_OF_ALL, SCALE, Q, W, NORM, FINITE, KERNELS = range(10)
# Answers that commit all batches, and periods of one pass.
ALL, ONES = [1.0] * COUNT, [1.0] * COUNT


def told(*, passes: int = 1, factor: float = 1.0, seed: int = 0) -> np.ndarray:
    """A step whose gradients are `factor` times the last pass's, each pass with gradients of its own."""
    rng = np.random.default_rng(seed)
    numbers = np.zeros((COUNT, 10))
    products = rng.standard_normal((passes, COUNT)) * rng.uniform(1, 50, COUNT)
    numbers[:, PASSES], numbers[:, PERIOD] = passes, 1
    numbers[:, P], numbers[:, P_OF_ALL] = products[-1], products.sum(0)
    # |u| |v| is at least |p|; a gradient's norm is about as large as its projection.
    numbers[:, SCALE] = 3 * np.abs(products).sum(0)
    numbers[:, Q] = factor * numbers[:, P]
    numbers[:, W] = rng.standard_normal(COUNT)
    numbers[:, NORM] = np.abs(factor) * np.abs(products[-1]) * rng.uniform(0.7, 1.5, COUNT)
    numbers[:, FINITE] = numbers[:, KERNELS] = 1
    return numbers


def without_pass() -> np.ndarray:
    """A step in which no pass reaches the fourth layer."""
    numbers = told()
    numbers[3, [PASSES, P, P_OF_ALL, SCALE]] = 0
    return numbers


def judge_of(mode: str = "warn", **options: Any) -> Verification:
    return Verification(LAYERS, mode, "KFAC", **options)


def answers_of(judge: Verification, numbers: np.ndarray) -> tuple[list[float], list[float]]:
    """Which batches are committed, and the periods."""
    found = judge(numbers.astype(np.float32))
    assert found.shape == (COUNT, 4)
    return found[:, 0].tolist(), found[:, 1].tolist()


def states(judge: Verification) -> list[str]:
    return [checked.state for checked in judge.checked]
