"""Kinds of steps and their means."""

from __future__ import annotations

import pytest

from benchmarks.step_kinds import kind_of_step, mean_of_medians, mean_over_a_period, seconds_by_kind


def test_kinds_follow_the_intervals() -> None:
    kinds = [kind_of_step(step, (2, 4)) for step in range(6)]
    assert kinds == ["inverses", "ordinary", "statistics", "ordinary", "inverses", "ordinary"]
    assert {kind_of_step(step, (0, 0)) for step in range(5)} == {"ordinary"}


def test_the_mean_of_medians_weighs_kinds_by_their_steps() -> None:
    # Two kinds, one with an outlier: (2 * 3 + 10) / 4.
    by_kind = seconds_by_kind([2.0, 10.0, 2.0, 50.0], ["a", "b", "a", "a"])
    assert mean_of_medians(by_kind) == pytest.approx((3 * 2.0 + 10.0) / 4)


def test_the_mean_over_a_period_weighs_kinds_by_the_intervals() -> None:
    by_kind = seconds_by_kind([1.0, 1.0, 1.0, 3.0, 9.0], ["ordinary"] * 3 + ["statistics", "inverses"])
    # Two of four steps are ordinary.
    assert mean_over_a_period(by_kind, (2, 4)) == pytest.approx((1 + 1 + 3 + 9) / 4)
    assert mean_over_a_period({"ordinary": by_kind["ordinary"]}, (0, 0)) == 1.0


def test_there_is_no_mean_over_a_period_that_was_not_seen() -> None:
    by_kind = seconds_by_kind([1.0, 3.0], ["ordinary", "statistics"])
    assert mean_over_a_period(by_kind, (2, 4)) is None
