"""Who settles the form of the factors, and what a batch that does not fit brings about."""

from __future__ import annotations

import pytest

from ms_kfac.ops.statistics.factor_ranks import FactorRanks


def ranks(steps: int = 1, stored: tuple[int, int] = (0, 0)) -> FactorRanks:
    return FactorRanks("conv7", (20, 10), steps, lambda: stored)


def test_statistics_settle_it_by_their_own_rows() -> None:
    choice = ranks()
    choice.expect(3)
    assert choice.for_statistics(12) == (12, 10)
    choice.expect(30)
    assert choice.for_inverses() == (12, 10)
    assert choice.chosen == (12, 10)


def test_inverses_settle_it_by_the_last_forward_pass() -> None:
    choice = ranks()
    choice.expect(100)
    choice.expect(4)
    assert choice.for_inverses() == (4, 4)


@pytest.mark.parametrize("rows", [None, -1])
def test_full_rank_where_nothing_is_known(rows: int | None) -> None:
    choice = ranks()
    if rows is not None:
        choice.expect(rows)
    assert choice.for_inverses() == (20, 10)
    assert choice.for_statistics(4) == (20, 10)


def test_accumulation_multiplies_the_rows() -> None:
    assert ranks(steps=4).for_statistics(4) == (16, 10)


def test_stored_statistics_come_first() -> None:
    assert ranks(stored=(7, 0)).for_statistics(4) == (7, 4)


def test_larger_batches_warn_once_a_size() -> None:
    choice = ranks()
    choice.for_statistics(5)
    choice.for_statistics(3)
    with pytest.warns(UserWarning, match=r"conv7.*at 5.*6 rows"):
        assert choice.for_statistics(6) == (5, 5)
    choice.for_statistics(6)
