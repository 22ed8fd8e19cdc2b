"""Passes between two steps that are not the step's own: refused, replaced or skipped."""

from __future__ import annotations

import numpy as np
import pytest

from ms_kfac.statistics.verification import Verification
from tests.support.verification import (
    ALL,
    COUNT,
    LAYERS,
    NORM,
    ONES,
    P_OF_ALL,
    PASSES,
    PERIOD,
    SCALE,
    P,
    Q,
    W,
    answers_of,
    judge_of,
    states,
    told,
)

REFUSED = [0.0] * COUNT


def passes_of(*order: str, own: str, seed: int = 0, period: int = 1, skipped: int = 0) -> np.ndarray:
    """Passes since the last step, in order; the step has the gradients of all passes named `own`."""
    rng = np.random.default_rng(seed)
    products = np.array([rng.standard_normal(COUNT) * rng.uniform(5, 50, COUNT) for _ in order])
    counted = products[skipped:]
    batch = counted[(len(counted) - 1) // period * period :]
    numbers = told(seed=seed)
    numbers[:, PASSES], numbers[:, PERIOD] = len(counted), period
    numbers[:, P], numbers[:, P_OF_ALL] = batch.sum(0), counted.sum(0)
    numbers[:, Q] = products[[name == own for name in order]].sum(0)
    numbers[:, SCALE], numbers[:, NORM] = 3 * np.abs(products).sum(0), np.abs(numbers[:, Q])
    return numbers


@pytest.mark.parametrize("mode", ["warn", "first_order"])
def test_a_foreign_pass_after_the_step_s_is_refused(mode: str) -> None:
    """A generator's pass, an adversarial example, an evaluation: between the gradient and the step."""
    judge = judge_of(mode)
    with pytest.warns(UserWarning) as caught:
        assert answers_of(judge, passes_of("own", "foreign", own="own"))[0] == REFUSED
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "not the step's own reached layers conv1, conv2, mid, head and 1 more" in message
    assert "with optimizer.paused():" in message
    assert states(judge) == ["mismatch"] * COUNT
    assert answers_of(judge, passes_of("own", "foreign", own="own", seed=1))[0] == REFUSED
    # Without it the next batch is taken, also by mode "first_order": the layers are not at fault.
    assert answers_of(judge, told(seed=2)) == (ALL, ONES)


def test_a_foreign_pass_before_the_step_s_is_replaced() -> None:
    assert answers_of(judge_of(), passes_of("foreign", "own", own="own")) == (ALL, ONES)


def test_foreign_passes_in_front_are_skipped_from_the_next_step_on() -> None:
    """The discriminator's two calls, or two micro-batches, and the generator's pass after each step."""
    judge = judge_of("first_order")
    assert answers_of(judge, passes_of("own", "own", own="own"))[1] == [2.0] * COUNT
    order = ("foreign", "own", "own")
    with pytest.warns(UserWarning, match=r"with optimizer.paused\(\):"):
        found = judge(passes_of(*order, own="own", seed=1, period=2).astype(np.float32))
    assert found[:, [0, 1, 3]].tolist() == [[0, 2, 1]] * COUNT
    for seed in (2, 3):
        numbers = passes_of(*order, own="own", seed=seed, period=2, skipped=1)
        found = judge(numbers.astype(np.float32))
        assert found[:, [0, 1, 3]].tolist() == [[1, 2, 1]] * COUNT
    assert states(judge) == ["verified"] * COUNT
    # Without the foreign pass the numbers do not fit, and nothing is skipped from then on.
    found = judge(passes_of("own", "own", own="own", period=2, skipped=1, seed=4).astype(np.float32))
    assert found[:, [0, 1, 3]].tolist() == [[0, 2, 0]] * COUNT
    numbers = passes_of("own", "own", own="own", period=2, seed=5)
    assert answers_of(judge, numbers) == (ALL, [2.0] * COUNT)


@pytest.mark.parametrize(("announced", "foreign"), [(1, 1), (3, 1), (3, 2)])
def test_a_first_batch_with_foreign_passes_in_front(announced: int, foreign: int) -> None:
    """Micro-batches that were announced are known; otherwise all passes but one are tried."""
    judge, order = judge_of(), (*["foreign"] * foreign, "own", "own", "own")
    with pytest.warns(UserWarning, match="not the step's own"):
        found = judge(passes_of(*order, own="own", period=announced).astype(np.float32))
    assert found[:, [0, 1, 3]].tolist() == [[0, 3, foreign]] * COUNT
    numbers = passes_of(*order, own="own", period=3, skipped=foreign, seed=1)
    assert answers_of(judge, numbers) == (ALL, [3.0] * COUNT)


def test_an_order_that_can_not_be_skipped_is_refused_each_time() -> None:
    judge, order = judge_of(), ("own", "own", "foreign")
    with pytest.warns(UserWarning, match="not the step's own"):
        found = judge(passes_of(*order, own="own").astype(np.float32))
    for seed in range(1, 6):
        period, skipped = (int(found[0, index]) for index in (1, 3))
        numbers = passes_of(*order, own="own", seed=seed, period=period, skipped=skipped)
        found = judge(numbers.astype(np.float32))
        assert found[:, 0].tolist() == REFUSED


def test_a_fitted_factor_of_few_layers_is_no_evidence_against_a_foreign_pass() -> None:
    """Three layers, a factor and an L2 term: one equation is left, which a foreign pass may fulfil."""
    numbers = passes_of("own", "foreign", own="own")[:3]
    numbers[:, Q] = 1.3 * numbers[:, P] + 0.5 * numbers[:, W]
    judge = Verification(LAYERS[:3], "warn", "KFAC")
    with pytest.warns(UserWarning, match="not the step's own"):
        assert judge(numbers.astype(np.float32))[:, 0].tolist() == [0, 0, 0]


def test_off_commits_foreign_passes() -> None:
    assert answers_of(judge_of("off"), passes_of("own", "foreign", own="own")) == (ALL, ONES)
