"""Batches with NaN or Inf: refused, told once, and no mismatch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.verification import (
    ALL,
    COUNT,
    FINITE,
    NORM,
    ONES,
    P_OF_ALL,
    SCALE,
    P,
    Q,
    W,
    answers_of,
    judge_of,
    states,
    told,
)


@pytest.mark.parametrize("mode", ["warn", "first_order", "off"])
def test_a_batch_with_nan_is_refused(mode: str) -> None:
    numbers = told()
    numbers[0, FINITE] = 0
    numbers[0, [P, P_OF_ALL, SCALE]] = np.nan
    judge = judge_of(mode)
    with pytest.warns(UserWarning, match="a batch's statistics of layer conv1 hold NaN; the batch"):
        assert answers_of(judge, numbers) == ([0.0, 1.0, 1.0, 1.0, 1.0], ONES)
    others = "unchecked" if mode == "off" else "verified"
    assert states(judge) == ["not finite", *[others] * (COUNT - 1)]
    assert answers_of(judge, numbers)[0] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert answers_of(judge, told(seed=1)) == (ALL, ONES)
    assert states(judge) == [others] * COUNT


def test_overflowed_gradients_are_not_a_mismatch() -> None:
    """The gradients are Inf, the statistics too: nothing can be compared, and nothing is at fault."""
    numbers = told()
    numbers[:, FINITE] = 0
    numbers[:, [P, P_OF_ALL, SCALE, Q, NORM]] = np.inf
    judge = judge_of("first_order")
    # The check of the step tells of gradients.
    assert answers_of(judge, numbers)[0] == [0.0] * COUNT
    assert answers_of(judge, told(seed=1)) == (ALL, ONES)


@pytest.mark.parametrize("mode", ["warn", "first_order", "off"])
@pytest.mark.parametrize("column", [Q, NORM])
def test_one_gradient_that_is_not_finite_refuses_the_batches_of_all_layers(mode: str, column: int) -> None:
    """The step is skipped, so its statistics are not taken either."""
    numbers = told()
    numbers[3, column] = np.nan
    judge = judge_of(mode)
    assert answers_of(judge, numbers) == ([0.0] * COUNT, ONES)
    assert answers_of(judge, told(seed=1)) == (ALL, ONES)


def test_weights_that_are_not_finite_are_told() -> None:
    numbers = told()
    numbers[1, W] = np.inf
    judge = judge_of()
    with pytest.warns(UserWarning, match="the weights hold Inf in layer conv2, although"):
        assert answers_of(judge, numbers) == (ALL, ONES)
