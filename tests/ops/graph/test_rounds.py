"""Sequences cut into the rounds of short loops."""

from __future__ import annotations

import pytest

from ms_kfac.ops.graph.rounds import ROUNDS, in_rounds


@pytest.mark.parametrize("count", [0, 1, ROUNDS, ROUNDS + 1, 5 * ROUNDS - 1])
def test_every_item_once_in_order(count: int) -> None:
    pieces = in_rounds(range(count))
    assert [item for piece in pieces for item in piece] == list(range(count))
    assert all(0 < len(piece) <= ROUNDS for piece in pieces)
