"""Layers whose statistics do not belong to their gradients: refused, discarded, reported."""

from __future__ import annotations

import numpy as np
import pytest

from ms_kfac.statistics.verification import Verification
from tests.support.verification import (
    ALL,
    COUNT,
    FINITE,
    NORM,
    ONES,
    P,
    Q,
    W,
    answers_of,
    judge_of,
    states,
    told,
)


def with_wrong_layer() -> np.ndarray:
    numbers = told()
    numbers[2, Q] = 1.7 * numbers[2, P]
    return numbers


def test_layer_whose_weight_is_used_elsewhere_is_reported() -> None:
    judge = judge_of()
    with pytest.warns(UserWarning) as caught:
        assert answers_of(judge, with_wrong_layer()) == ([1.0, 1.0, -1.0, 1.0, 1.0], ONES)
    (message,) = (str(warning.message) for warning in caught)
    assert "KFAC: the statistics of layer mid do not belong to the delivered gradient" in message
    assert "1.7" in message
    assert "used outside its layer" in message
    assert "without earlier statistics these layers are first-order" in message
    assert "verify='off'" in message
    assert states(judge) == ["verified"] * 2 + ["mismatch"] + ["verified"] * 2
    assert judge.checked[2].ratio == pytest.approx(1.7, rel=1e-5)
    answers_of(judge, with_wrong_layer())


def decisions(judge: Verification, *right: bool) -> list[float]:
    """Decisions about the layer of `with_wrong_layer`, which is verified or not at each commit."""
    steps = [told() if verified else with_wrong_layer() for verified in right]
    return [answers_of(judge, numbers)[0][2] for numbers in steps]


@pytest.mark.filterwarnings("ignore:KFAC. the statistics of layer mid")
def test_a_layer_that_is_refuted_at_first_must_be_verified_three_times() -> None:
    assert decisions(judge_of(), False, True, True, True, True) == [-1, 0, 0, 1, 1]
    assert decisions(judge_of(), False, True, False, True, True, True) == [-1, 0, -1, 0, 0, 1]


@pytest.mark.filterwarnings("ignore:KFAC. the statistics of layer mid")
def test_a_layer_with_statistics_loses_them_after_three_mismatches() -> None:
    assert decisions(judge_of(), True, False, True, False, False, True, True) == [1, 0, 1, 0, 0, 0, 1]
    assert decisions(judge_of(), True, False, False, False, True, True, True) == [1, 0, 0, -1, 0, 0, 1]


@pytest.mark.filterwarnings("ignore:KFAC. the statistics of layer mid")
def test_a_projection_near_zero_is_no_proof() -> None:
    numbers = told()
    numbers[2, NORM] *= 60
    judge = judge_of()
    assert answers_of(judge, numbers) == (ALL, ONES)
    assert decisions(judge, False) == [-1]


@pytest.mark.filterwarnings("ignore:KFAC. the statistics of layer mid")
def test_a_refuted_layer_keeps_nan_out() -> None:
    judge = judge_of()
    with pytest.warns(UserWarning, match="layer mid hold Inf; the batch"):
        numbers = told()
        numbers[2, FINITE] = 0
        assert answers_of(judge, numbers)[0][2] == 0
    assert decisions(judge, False, True) == [-1, 0]


def test_first_order_empties_the_layer_for_good() -> None:
    judge = judge_of("first_order")
    emptied = [1.0, 1.0, -1.0, 1.0, 1.0]
    with pytest.warns(UserWarning, match="layer mid .* stay first-order"):
        assert answers_of(judge, with_wrong_layer()) == (emptied, ONES)
    assert answers_of(judge, told(seed=1)) == (emptied, ONES)
    with pytest.warns(UserWarning, match="layer head"):
        numbers = told(seed=2)
        numbers[3, Q] = -numbers[3, P]
        assert answers_of(judge, numbers) == ([1.0, 1.0, -1.0, -1.0, 1.0], ONES)


def test_a_layer_without_its_gradient_s_other_half_is_a_mismatch() -> None:
    """A gradient of the same size in another direction: q and p are unrelated."""
    numbers = told()
    numbers[4, Q] = 0.0
    judge = judge_of()
    with pytest.warns(UserWarning, match="layer out "):
        answers_of(judge, numbers)
    assert states(judge)[4] == "mismatch"


def test_an_l2_term_of_some_layers_alone_is_a_mismatch() -> None:
    """Weights decayed in the loss of two layers of five: no common multiple of r'Ws explains them."""
    numbers = told()
    numbers[:2, W] = 40.0
    numbers[:2, Q] += 0.8 * numbers[:2, W]
    judge = judge_of()
    with pytest.warns(UserWarning, match="layers conv1, conv2 do not belong to the delivered gradient"):
        assert answers_of(judge, numbers) == ([-1.0, -1.0, 1.0, 1.0, 1.0], ONES)
    assert states(judge) == ["mismatch"] * 2 + ["verified"] * 3


def test_one_layer_of_five_may_fit_another_pass_by_chance() -> None:
    numbers, other = told(), told(seed=9)
    numbers[1:, Q] = other[1:, Q]
    judge = judge_of()
    with pytest.warns(UserWarning, match="changed per layer.* are still preconditioned"):
        assert answers_of(judge, numbers) == (ALL, ONES)


def test_changed_gradients_are_reported_for_all_layers() -> None:
    """One pass since the last step, which must be the step's own: clipped per layer, with noise."""
    numbers, other = told(), told(seed=9)
    numbers[:, Q] = other[:, Q]
    judge = judge_of()
    with pytest.warns(UserWarning) as caught:
        answers_of(judge, numbers)
    message = str(caught[0].message)
    assert "layers conv1, conv2, mid, head and 1 more do not belong" in message
    assert "changed per layer, or added to other gradients" in message
    assert "are still preconditioned" in message
    assert states(judge) == ["mismatch"] * COUNT
