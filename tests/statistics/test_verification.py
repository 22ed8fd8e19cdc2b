"""The judge: which deliveries it accepts, and what it answers to them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.verification import (
    ALL,
    COUNT,
    KERNELS,
    NORM,
    ONES,
    P_OF_ALL,
    PASSES,
    PERIOD,
    P,
    Q,
    W,
    answers_of,
    judge_of,
    states,
    told,
    without_pass,
)


@pytest.mark.parametrize("mode", ["warn", "first_order"])
@pytest.mark.parametrize("seed", range(5))
def test_unchanged_gradients_give_no_warning(mode: str, seed: int) -> None:
    judge = judge_of(mode)
    assert answers_of(judge, told(seed=seed)) == (ALL, ONES)
    assert judge.factor == 1.0
    assert states(judge) == ["verified"] * COUNT
    np.testing.assert_allclose([checked.ratio for checked in judge.checked], 1.0, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.0371, 0.62, 3.3])
def test_gradients_clipped_by_their_common_norm_pass(factor: float) -> None:
    judge = judge_of("first_order")
    assert answers_of(judge, told(factor=factor)) == (ALL, ONES)
    assert judge.factor == pytest.approx(factor, rel=1e-5)
    assert states(judge) == ["verified"] * COUNT


def test_rounding_of_half_precision_gradients_passes(rng: np.random.Generator) -> None:
    numbers = told()
    numbers[:, Q] += 1e-3 * numbers[:, NORM] * rng.choice([-1, 1], COUNT)
    judge = judge_of("first_order")
    assert answers_of(judge, numbers) == (ALL, ONES)
    assert judge.factor == 1.0


@pytest.mark.parametrize("factor", [1.0, 0.31])
def test_an_l2_term_in_the_loss_passes(factor: float) -> None:
    numbers = told(factor=factor)
    numbers[:, Q] += 0.8 * numbers[:, W]
    numbers[:, NORM] = np.maximum(numbers[:, NORM], 0.8)
    judge = judge_of("first_order")
    assert answers_of(judge, numbers) == (ALL, ONES)
    assert states(judge) == ["verified"] * COUNT


def test_an_l2_term_of_three_layers_passes() -> None:
    numbers = told()
    numbers[1:4, W] = [40.0, -20.0, 30.0]
    numbers[1:4, Q] += 0.8 * numbers[1:4, W]
    judge = judge_of("first_order")
    assert answers_of(judge, numbers) == (ALL, ONES)
    assert states(judge) == ["verified"] * COUNT


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("passes", [2, 3, 4])
def test_accumulated_gradients_set_the_period(passes: int, averaged: bool) -> None:
    """Unannounced micro-batches: later batches are sums of as many passes."""
    numbers = told(passes=passes)
    numbers[:, Q] = numbers[:, P_OF_ALL] / (passes if averaged else 1)
    judge = judge_of("first_order")
    assert answers_of(judge, numbers) == (ALL, [float(passes)] * COUNT)
    assert judge.factor == pytest.approx(1 / passes if averaged else 1.0)
    np.testing.assert_allclose([checked.ratio for checked in judge.checked], 1.0, rtol=1e-5)
    # The next commit comes with a sum over the period, and is told so.
    numbers = told(passes=passes, seed=1)
    numbers[:, PERIOD], numbers[:, P] = passes, numbers[:, P_OF_ALL]
    numbers[:, Q] = numbers[:, P_OF_ALL] / (passes if averaged else 1)
    assert answers_of(judge, numbers) == (ALL, [float(passes)] * COUNT)
    assert states(judge) == ["verified"] * COUNT


def test_a_clipped_sum_of_micro_batches_sets_the_period() -> None:
    numbers = told(passes=3)
    numbers[:, Q] = 0.21 * numbers[:, P_OF_ALL]
    judge = judge_of("first_order")
    assert answers_of(judge, numbers) == (ALL, [3.0] * COUNT)
    assert judge.factor == pytest.approx(0.21, rel=1e-5)


@pytest.mark.parametrize("mode", ["warn", "first_order", "off"])
def test_an_announced_period_stays(mode: str) -> None:
    numbers = told()
    numbers[:, [PASSES, PERIOD]] = 4
    assert answers_of(judge_of(mode), numbers) == (ALL, [4.0] * COUNT)


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_a_layer_that_is_called_twice_gets_a_period_of_its_own(factor: float) -> None:
    numbers = told()
    numbers[1, PASSES] = 2
    numbers[1, P_OF_ALL] = numbers[1, P] + 2.5 * abs(numbers[1, P])
    numbers[:, Q] = factor * numbers[:, P_OF_ALL]
    numbers[:, NORM] = abs(numbers[:, Q])
    judge = judge_of("first_order")
    assert answers_of(judge, numbers) == (ALL, [1.0, 2.0, 1.0, 1.0, 1.0])
    assert states(judge) == ["verified"] * COUNT
    assert judge.calls.calls.tolist() == [1, 2, 1, 1, 1]


def test_calls_are_answered_for_each_layer() -> None:
    """Also for a layer that this step does not verify."""
    numbers = told(passes=2)
    numbers[:, KERNELS] = 2
    numbers[:, Q] = numbers[:, P_OF_ALL]
    judge = judge_of()
    assert judge(numbers.astype(np.float32))[:, 2].tolist() == [2] * COUNT
    numbers[1, [PASSES, P, P_OF_ALL, NORM, Q]] = 0
    assert judge(numbers.astype(np.float32))[:, 2].tolist() == [2] * COUNT


def test_passes_that_may_be_calls_or_micro_batches_are_told_once() -> None:
    numbers = told(passes=2)
    numbers[:, KERNELS] = 0
    numbers[:, Q] = numbers[:, P_OF_ALL]
    judge = judge_of()
    with pytest.warns(UserWarning, match="all layers had 2 backward passes .* accumulation_steps=2"):
        assert answers_of(judge, numbers) == (ALL, [2.0] * COUNT)
    answers_of(judge, numbers)
    assert judge.calls.calls.tolist() == [1] * COUNT


def test_state_tells_why_a_layer_was_not_compared() -> None:
    judge = judge_of()
    numbers = told()
    numbers[0, [P, P_OF_ALL, Q, NORM]] = 0
    numbers[1, [Q, NORM]] = np.nan
    answers_of(judge, numbers)
    assert states(judge)[:3] == ["zero gradient", "not finite", "verified"]


def test_off_looks_at_nothing_but_nan() -> None:
    judge = judge_of("off")
    wrong = told()
    wrong[:, Q] *= np.arange(COUNT)
    assert answers_of(judge, wrong) == (ALL, ONES)
    assert answers_of(judge, without_pass()) == (ALL, ONES)
    assert states(judge) == ["unchecked"] * COUNT
