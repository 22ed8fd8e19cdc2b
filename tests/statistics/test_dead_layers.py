"""Collapsed training: layers whose gradients were non-zero and are now exactly 0."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.verification import COUNT, FINITE, NORM, P_OF_ALL, P, Q, judge_of, told


def without_gradient(*layers: int) -> np.ndarray:
    numbers = told()
    numbers[np.ix_(layers, [P, P_OF_ALL, Q, NORM])] = 0.0
    return numbers


def test_layers_that_lose_their_gradients_are_reported_once() -> None:
    judge = judge_of()
    judge(told())
    judge(without_gradient(0, 2))
    judge(without_gradient(0, 2))
    with pytest.warns(
        UserWarning, match="gradient of layers conv1, mid has been exactly 0 in 3 batches"
    ) as w:
        judge(without_gradient(0, 2))
    assert len(w) == 1
    judge(without_gradient(0, 2))


def test_idle_batches_and_layers_that_never_had_a_gradient_are_no_collapse() -> None:
    judge = judge_of()
    judge(without_gradient(4))
    for _ in range(4):
        judge(without_gradient(1, 4))
        judge(without_gradient(1, 4))
        judge(without_gradient(4))


def test_commits_that_do_not_reach_a_layer_do_not_count() -> None:
    """With a gate per layer, as in SP-NGD."""
    judge = judge_of(in_every_batch=[False] * COUNT)
    idle = told()
    idle[0] = 0.0
    idle[0, FINITE] = 1
    judge(told())
    for _ in range(2):
        judge(without_gradient(0))
        judge(idle)
    with pytest.warns(UserWarning, match="gradient of layer conv1 has been exactly 0"):
        judge(without_gradient(0))
