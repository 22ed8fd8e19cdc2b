"""The judge: which deliveries it accepts, what it answers to the others, and what it tells the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from ms_kfac.statistics.verification import Verification

LAYERS = ("conv1", "conv2", "mid", "head", "out")
COUNT = len(LAYERS)
# Columns of what the judge is told, as kernels/interface/judge.h numbers them.
PASSES, PERIOD, P, P_OF_ALL, SCALE, Q, W, NORM, FINITE, KERNELS = range(10)


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


def judge_of(mode: str = "warn", **options: bool) -> Verification:
    return Verification(LAYERS, mode, "KFAC", **options)


@contextmanager
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def answers_of(judge: Verification, numbers: np.ndarray) -> tuple[list[float], list[float]]:
    """Which batches are committed, and the periods."""
    found = judge(numbers.astype(np.float32))
    assert found.shape == (COUNT, 4)
    return found[:, 0].tolist(), found[:, 1].tolist()


def states(judge: Verification) -> list[str]:
    return [checked.state for checked in judge.checked]


ALL, ONES = [1.0] * COUNT, [1.0] * COUNT


@pytest.mark.parametrize("mode", ["warn", "first_order"])
@pytest.mark.parametrize("seed", range(5))
def test_unchanged_gradients_give_no_warning(mode: str, seed: int) -> None:
    judge = judge_of(mode)
    with silent():
        assert answers_of(judge, told(seed=seed)) == (ALL, ONES)
    assert judge.factor == 1.0
    assert states(judge) == ["verified"] * COUNT
    np.testing.assert_allclose([checked.ratio for checked in judge.checked], 1.0, rtol=1e-6)


@pytest.mark.parametrize("factor", [0.0371, 0.62, 3.3])
def test_gradients_clipped_by_their_common_norm_pass(factor: float) -> None:
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, told(factor=factor)) == (ALL, ONES)
    assert judge.factor == pytest.approx(factor, rel=1e-5)
    assert states(judge) == ["verified"] * COUNT


def test_rounding_of_half_precision_gradients_passes(rng: np.random.Generator) -> None:
    numbers = told()
    numbers[:, Q] += 1e-3 * numbers[:, NORM] * rng.choice([-1, 1], COUNT)
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, numbers) == (ALL, ONES)
    assert judge.factor == 1.0


@pytest.mark.parametrize("factor", [1.0, 0.31])
def test_an_l2_term_in_the_loss_passes(factor: float) -> None:
    numbers = told(factor=factor)
    numbers[:, Q] += 0.8 * numbers[:, W]
    numbers[:, NORM] = np.maximum(numbers[:, NORM], 0.8)
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, numbers) == (ALL, ONES)
    assert states(judge) == ["verified"] * COUNT


def test_an_l2_term_of_some_layers_alone_is_a_mismatch() -> None:
    """Weights decayed in the loss of two layers of five: no common multiple of r'Ws explains them."""
    numbers = told()
    numbers[:2, W] = 40.0
    numbers[:2, Q] += 0.8 * numbers[:2, W]
    judge = judge_of()
    with pytest.warns(UserWarning, match="layers conv1, conv2 do not belong to the delivered gradient"):
        assert answers_of(judge, numbers) == ([-1.0, -1.0, 1.0, 1.0, 1.0], ONES)
    assert states(judge) == ["mismatch"] * 2 + ["verified"] * 3


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("passes", [2, 3, 4])
def test_accumulated_gradients_set_the_period(passes: int, averaged: bool) -> None:
    """Unannounced micro-batches: later batches are sums of as many passes."""
    numbers = told(passes=passes)
    numbers[:, Q] = numbers[:, P_OF_ALL] / (passes if averaged else 1)
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, numbers) == (ALL, [float(passes)] * COUNT)
    assert judge.factor == pytest.approx(1 / passes if averaged else 1.0)
    np.testing.assert_allclose([checked.ratio for checked in judge.checked], 1.0, rtol=1e-5)
    # The next commit comes with a sum over the period, and is told so.
    numbers = told(passes=passes, seed=1)
    numbers[:, PERIOD], numbers[:, P] = passes, numbers[:, P_OF_ALL]
    numbers[:, Q] = numbers[:, P_OF_ALL] / (passes if averaged else 1)
    with silent():
        assert answers_of(judge, numbers) == (ALL, [float(passes)] * COUNT)
    assert states(judge) == ["verified"] * COUNT


def test_a_clipped_sum_of_micro_batches_sets_the_period() -> None:
    numbers = told(passes=3)
    numbers[:, Q] = 0.21 * numbers[:, P_OF_ALL]
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, numbers) == (ALL, [3.0] * COUNT)
    assert judge.factor == pytest.approx(0.21, rel=1e-5)


def test_an_l2_term_of_three_layers_passes() -> None:
    numbers = told()
    numbers[1:4, W] = [40.0, -20.0, 30.0]
    numbers[1:4, Q] += 0.8 * numbers[1:4, W]
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, numbers) == (ALL, ONES)
    assert states(judge) == ["verified"] * COUNT


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_a_layer_that_is_called_twice_gets_a_period_of_its_own(factor: float) -> None:
    numbers = told()
    numbers[1, PASSES] = 2
    numbers[1, P_OF_ALL] = numbers[1, P] + 2.5 * abs(numbers[1, P])
    numbers[:, Q] = factor * numbers[:, P_OF_ALL]
    numbers[:, NORM] = abs(numbers[:, Q])
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, numbers) == (ALL, [1.0, 2.0, 1.0, 1.0, 1.0])
    assert states(judge) == ["verified"] * COUNT
    assert judge.calls.calls.tolist() == [1, 2, 1, 1, 1]


def test_calls_are_answered_for_each_layer() -> None:
    """Also for a layer that this step does not verify."""
    numbers = told(passes=2)
    numbers[:, KERNELS] = 2
    numbers[:, Q] = numbers[:, P_OF_ALL]
    judge = judge_of()
    with silent():
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
    with silent():
        answers_of(judge, numbers)
    assert judge.calls.calls.tolist() == [1] * COUNT


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
    with silent():
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


def test_one_layer_of_five_may_fit_another_pass_by_chance() -> None:
    numbers, other = told(), told(seed=9)
    numbers[1:, Q] = other[1:, Q]
    judge = judge_of()
    with pytest.warns(UserWarning, match="changed per layer.* are still preconditioned"):
        assert answers_of(judge, numbers) == (ALL, ONES)


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
    with pytest.warns(UserWarning, match="hold NaN or Inf"):
        numbers = told()
        numbers[2, FINITE] = 0
        assert answers_of(judge, numbers)[0][2] == 0
    assert decisions(judge, False, True) == [-1, 0]


def test_first_order_empties_the_layer_for_good() -> None:
    judge = judge_of("first_order")
    emptied = [1.0, 1.0, -1.0, 1.0, 1.0]
    with pytest.warns(UserWarning, match="layer mid .* stay first-order"):
        assert answers_of(judge, with_wrong_layer()) == (emptied, ONES)
    with silent():
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
    with silent():
        assert answers_of(judge, passes_of("own", "foreign", own="own", seed=1))[0] == REFUSED
        # Without it the next batch is taken, also by mode "first_order": the layers are not at fault.
        assert answers_of(judge, told(seed=2)) == (ALL, ONES)


def test_a_foreign_pass_before_the_step_s_is_replaced() -> None:
    with silent():
        assert answers_of(judge_of(), passes_of("foreign", "own", own="own")) == (ALL, ONES)


def test_foreign_passes_in_front_are_skipped_from_the_next_step_on() -> None:
    """The discriminator's two calls, or two micro-batches, and the generator's pass after each step."""
    judge = judge_of("first_order")
    with silent():
        assert answers_of(judge, passes_of("own", "own", own="own"))[1] == [2.0] * COUNT
    order = ("foreign", "own", "own")
    with pytest.warns(UserWarning, match=r"with optimizer.paused\(\):"):
        found = judge(passes_of(*order, own="own", seed=1, period=2).astype(np.float32))
    assert found[:, [0, 1, 3]].tolist() == [[0, 2, 1]] * COUNT
    with silent():
        for seed in (2, 3):
            numbers = passes_of(*order, own="own", seed=seed, period=2, skipped=1)
            found = judge(numbers.astype(np.float32))
            assert found[:, [0, 1, 3]].tolist() == [[1, 2, 1]] * COUNT
    assert states(judge) == ["verified"] * COUNT
    # Without the foreign pass the numbers do not fit, and nothing is skipped from then on.
    with silent():
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
    with silent():
        numbers = passes_of(*order, own="own", period=3, skipped=foreign, seed=1)
        assert answers_of(judge, numbers) == (ALL, [3.0] * COUNT)


def test_an_order_that_can_not_be_skipped_is_refused_each_time() -> None:
    judge, order = judge_of(), ("own", "own", "foreign")
    with pytest.warns(UserWarning, match="not the step's own"):
        found = judge(passes_of(*order, own="own").astype(np.float32))
    with silent():
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
    with silent():
        assert answers_of(judge_of("off"), passes_of("own", "foreign", own="own")) == (ALL, ONES)


def without_any_pass() -> np.ndarray:
    numbers = told()
    numbers[:, [PASSES, P, P_OF_ALL, SCALE]] = 0
    return numbers


def test_gradients_without_any_pass_are_older_than_the_step_or_compiled_before() -> None:
    judge = judge_of()
    with pytest.warns(UserWarning, match="compiled before this optimizer was made"):
        answers_of(judge, without_any_pass())
    assert states(judge) == ["no pass"] * COUNT


def without_pass() -> np.ndarray:
    numbers = told()
    numbers[3, [PASSES, P, P_OF_ALL, SCALE]] = 0
    return numbers


def test_unreached_layer_is_reported_once() -> None:
    judge = judge_of()
    with pytest.warns(UserWarning, match="no backward pass reached the statistics of layer head"):
        answers_of(judge, without_pass())
    assert states(judge)[3] == "no pass"
    with silent():
        answers_of(judge, without_pass())


def test_a_layer_without_a_pass_and_without_a_gradient_is_unused() -> None:
    numbers = without_pass()
    numbers[3, [Q, NORM]] = 0
    judge = judge_of()
    with silent():
        answers_of(judge, numbers)
    assert states(judge)[3] == "unchecked"


def test_layers_with_gates_of_their_own_may_come_without_a_pass() -> None:
    judge = judge_of(shares_gate=False)
    with pytest.warns(UserWarning, match="no backward pass reached the statistics of layer head"):
        answers_of(judge, without_pass())
    numbers = told()
    numbers[1, [PASSES, P, P_OF_ALL, SCALE]] = 0
    with silent():
        answers_of(judge, numbers)


@pytest.mark.parametrize("mode", ["warn", "first_order", "off"])
def test_a_batch_with_nan_is_refused(mode: str) -> None:
    numbers = told()
    numbers[0, FINITE] = 0
    numbers[0, [P, P_OF_ALL, SCALE]] = np.nan
    judge = judge_of(mode)
    with pytest.warns(UserWarning, match="a batch's statistics of layer conv1 hold NaN or Inf; the batch"):
        assert answers_of(judge, numbers) == ([0.0, 1.0, 1.0, 1.0, 1.0], ONES)
    with silent():
        assert answers_of(judge, numbers)[0] == [0.0, 1.0, 1.0, 1.0, 1.0]
        assert answers_of(judge, told(seed=1)) == (ALL, ONES)


def test_overflowed_gradients_are_not_a_mismatch() -> None:
    """The gradients are Inf, the statistics too: nothing can be compared, and nothing is at fault."""
    numbers = told()
    numbers[:, FINITE] = 0
    numbers[:, [P, P_OF_ALL, SCALE, Q, NORM]] = np.inf
    judge = judge_of("first_order")
    with pytest.warns(UserWarning) as caught:
        assert answers_of(judge, numbers)[0] == [0.0] * COUNT
    assert len(caught) == 1
    assert "NaN or Inf" in str(caught[0].message)
    with silent():
        assert answers_of(judge, told(seed=1)) == (ALL, ONES)


@pytest.mark.parametrize(("factor", "refused"), [(1 / 1024, True), (1 / 65536, True), (8.0, False)])
def test_a_power_of_two_hints_at_a_loss_scale_once(factor: float, refused: bool) -> None:
    """Statistics of a scaled loss would be too large by the square of the scale: they are emptied."""
    judge = judge_of()
    answers = [-1.0 if refused else 1.0] * COUNT
    with pytest.warns(UserWarning, match=f"are {factor:.6g} times .* pass the scaler as loss_scale="):
        assert answers_of(judge, told(factor=factor)) == (answers, ONES)
    with silent():
        assert answers_of(judge, told(factor=factor, seed=1)) == (answers, ONES)
        assert answers_of(judge, told(seed=2)) == (ALL, ONES)


def test_constant_factor_is_reported_at_the_fourth_commit() -> None:
    judge = judge_of()
    with silent():
        for seed in range(3):
            assert answers_of(judge, told(factor=1e-3, seed=seed)) == (ALL, ONES)
    with pytest.warns(UserWarning, match=r"are 0\.001 times .* the same factor in several batches"):
        assert answers_of(judge, told(factor=1e-3, seed=3)) == ([-1.0] * COUNT, ONES)


def test_factors_of_clipping_are_not_constant() -> None:
    judge = judge_of()
    with silent():
        for seed, factor in enumerate((0.5, 0.51, 0.498, 0.505, 0.5, 0.51)):
            # 0.5 itself is a power of two.
            assert answers_of(judge, told(factor=factor * 0.9, seed=seed)) == (ALL, ONES)


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
    with silent():
        assert answers_of(judge, wrong) == (ALL, ONES)
        assert answers_of(judge, without_pass()) == (ALL, ONES)
    assert states(judge) == ["unchecked"] * COUNT


@pytest.mark.parametrize("mode", ["warn", "first_order", "off"])
def test_an_announced_period_stays(mode: str) -> None:
    numbers = told()
    numbers[:, [PASSES, PERIOD]] = 4
    with silent():
        assert answers_of(judge_of(mode), numbers) == (ALL, [4.0] * COUNT)


def without_gradient(*layers: int) -> np.ndarray:
    numbers = told()
    numbers[np.ix_(layers, [P, P_OF_ALL, Q, NORM])] = 0.0
    return numbers


def test_layers_that_lose_their_gradients_are_reported_once() -> None:
    judge = judge_of()
    with silent():
        judge(told())
        judge(without_gradient(0, 2))
        judge(without_gradient(0, 2))
    with pytest.warns(
        UserWarning, match="gradient of layers conv1, mid has been exactly 0 in 3 batches"
    ) as w:
        judge(without_gradient(0, 2))
    assert len(w) == 1
    with silent():
        judge(without_gradient(0, 2))


def test_idle_batches_and_layers_that_never_had_a_gradient_are_no_collapse() -> None:
    judge = judge_of()
    with silent():
        judge(without_gradient(4))
        for _ in range(4):
            judge(without_gradient(1, 4))
            judge(without_gradient(1, 4))
            judge(without_gradient(4))


def test_commits_that_do_not_reach_a_layer_do_not_count() -> None:
    """With a gate per layer, as in SP-NGD."""
    judge = judge_of(shares_gate=False)
    idle = told()
    idle[0] = 0.0
    idle[0, FINITE] = 1
    with silent():
        judge(told())
        for _ in range(2):
            judge(without_gradient(0))
            judge(idle)
    with pytest.warns(UserWarning, match="gradient of layer conv1 has been exactly 0"):
        judge(without_gradient(0))
