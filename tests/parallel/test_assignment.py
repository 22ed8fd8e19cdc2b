"""Assignment of layers to ranks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ms_kfac.parallel import place

works = st.lists(st.integers(0, 50).map(float), min_size=1, max_size=7)


def busiest(work: list[float], owners: tuple[int, ...], ranks: int) -> float:
    return max(sum(w for w, owner in zip(work, owners) if owner == rank) for rank in range(ranks))


@given(works, st.integers(1, 3))
def test_the_busiest_rank_is_within_grahams_bound(work: list[float], ranks: int) -> None:
    best = min(busiest(work, owners, ranks) for owners in itertools.product(range(ranks), repeat=len(work)))
    assert busiest(work, place(work, ranks), ranks) <= (4 / 3 - 1 / (3 * ranks)) * best * (1 + 1e-12)


def test_the_longest_go_first() -> None:
    """In the order given, 3 3 2 2 2 would end at 7 against 5 (ranks 0: 3, 2, 2)."""
    assert place([2.0, 2.0, 2.0, 3.0, 3.0], 2) == (0, 1, 0, 0, 1)


def test_ties_go_to_the_earlier_layer_and_the_lower_rank() -> None:
    assert place([1.0] * 5, 3) == (0, 1, 2, 0, 1)


def test_more_ranks_than_layers_leave_ranks_without() -> None:
    assert place([1.0, 5.0], 4) == (1, 0)


def test_zero_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="ranks"):
        place([1.0], 0)
