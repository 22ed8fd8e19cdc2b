"""Bytes that collectives move, counted by hand."""

from __future__ import annotations

import pytest

from ms_kfac.parallel import Distribution, LayerSize, plan

# Triangles of 6 + 3, twice for its groups, and of 15 + 1 numbers; work 70 and 126.
LAYERS = [LayerSize(3, 2, groups=2), LayerSize(5, 1, bias=True)]


def test_all_reduced_statistics_and_sent_inverses() -> None:
    traffic = plan(LAYERS, 2, Distribution(collective="all_reduce"))
    assert traffic.owners == (1, 0)
    assert traffic.statistics == 4 * (18 + 2 + 16 + 2)
    # Both ranks send as much as the larger share.
    assert traffic.inverses == 4 * 18
    assert (traffic.gradients, traffic.new_statistics) == (0, 0)
    # A ring of two: each rank sends its half twice; of inverses its own share once.
    assert traffic.sent_at_refresh() == 4 * 38 + 4 * 18
    assert traffic.sent_on_average(10, 100) == pytest.approx(traffic.sent_at_refresh() / 100)


def test_scattered_statistics_and_sent_gradients() -> None:
    traffic = plan(LAYERS, 2, Distribution(exchange="gradients"))
    assert traffic.collective == "reduce_scatter"
    assert traffic.statistics == 4 * 2 * 20
    assert traffic.inverses == 0
    # 12 weights and their inner product; 5 numbers and two of them, for weight and bias.
    assert traffic.gradients == 4 * 13
    assert traffic.sent_at_refresh() == 4 * 20
    assert traffic.sent_each_step() == 4 * 13


def test_each_rank_sends_to_all_others() -> None:
    traffic = plan(LAYERS, 4, Distribution(exchange="inverses", collective="all_reduce"))
    assert traffic.sent_at_refresh() == pytest.approx(2 * 3 / 4 * 4 * 38 + 3 * 4 * 18)


def test_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="layers"):
        plan([], 2, Distribution())
