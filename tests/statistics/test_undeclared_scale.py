"""Factors between gradients that hint at a loss scale that the optimizer was not told of."""

from __future__ import annotations

import pytest

from tests.support.verification import (
    ALL,
    COUNT,
    ONES,
    answers_of,
    judge_of,
    told,
)


@pytest.mark.parametrize(("factor", "refused"), [(1 / 1024, True), (1 / 65536, True), (8.0, False)])
def test_a_power_of_two_hints_at_a_loss_scale_once(factor: float, refused: bool) -> None:
    """Statistics of a scaled loss would be too large by the square of the scale: they are emptied."""
    judge = judge_of()
    answers = [-1.0 if refused else 1.0] * COUNT
    with pytest.warns(UserWarning, match=f"are {factor:.6g} times .* pass the scaler as loss_scale="):
        assert answers_of(judge, told(factor=factor)) == (answers, ONES)
    assert answers_of(judge, told(factor=factor, seed=1)) == (answers, ONES)
    assert answers_of(judge, told(seed=2)) == (ALL, ONES)


def test_constant_factor_is_reported_at_the_fourth_commit() -> None:
    judge = judge_of()
    for seed in range(3):
        assert answers_of(judge, told(factor=1e-3, seed=seed)) == (ALL, ONES)
    with pytest.warns(UserWarning, match=r"are 0\.001 times .* the same factor in several batches"):
        assert answers_of(judge, told(factor=1e-3, seed=3)) == ([-1.0] * COUNT, ONES)


def test_factors_of_clipping_are_not_constant() -> None:
    judge = judge_of()
    for seed, factor in enumerate((0.5, 0.51, 0.498, 0.505, 0.5, 0.51)):
        # 0.5 itself is a power of two.
        assert answers_of(judge, told(factor=factor * 0.9, seed=seed)) == (ALL, ONES)
