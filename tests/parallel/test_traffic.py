"""Bytes that collectives move, counted by hand."""

from __future__ import annotations

import pytest

from ms_kfac.parallel import Collective, Distribution, LayerSize, plan

# Triangles of 6 + 3, twice for its groups, and of 15 + 1 numbers; work 70 and 126.
LAYERS = [LayerSize(3, 2, groups=2), LayerSize(5, 1, bias=True)]


def test_all_reduced_statistics_and_sent_inverses() -> None:
    traffic = plan(LAYERS, 2, Distribution(collective="all_reduce"))
    assert traffic.owners == (1, 0)
    assert traffic.statistics == Collective("all_reduce", 4 * (18 + 2 + 16 + 2))
    # Both ranks send as much as the larger share.
    assert traffic.inverses == Collective("all_gather", 4 * 18)
    assert (traffic.gradients, traffic.new_statistics) == (None, None)
    # A ring of two: each rank sends its half twice; of inverses its own share once.
    assert traffic.sent_at_refresh() == 4 * 38 + 4 * 18
    assert traffic.sent_on_average(10, 100) == pytest.approx(traffic.sent_at_refresh() / 100)


def test_scattered_statistics_and_sent_gradients() -> None:
    traffic = plan(LAYERS, 2, Distribution(exchange="gradients"))
    assert traffic.statistics == Collective("reduce_scatter", 4 * 2 * 20)
    assert traffic.inverses is None
    # 12 weights and their inner product; 5 numbers and two of them, for weight and bias.
    assert traffic.gradients == Collective("all_gather", 4 * 13)
    assert traffic.sent_at_refresh() == 4 * 20
    assert traffic.sent_each_step() == 4 * 13


@pytest.mark.parametrize("exchange", ["inverses", "gradients"])
def test_many_ranks_send_no_padding(exchange: str) -> None:
    """Of 8 ranks 6 own nothing: equal parts would be 8 times the larger share."""
    traffic = plan(LAYERS, 8, Distribution(exchange=exchange))
    assert traffic.statistics == Collective("all_reduce", 4 * 38)
    sent = traffic.inverses if exchange == "inverses" else traffic.gradients
    assert sent == Collective("all_reduce", 4 * (34 if exchange == "inverses" else 20))
    assert traffic.sent_at_refresh() <= 2 * 4 * (38 + 34)


def test_bytes_sent_in_a_ring() -> None:
    """Chunks of a third: an all-reduce takes two rounds of two, an all-gather two of whole parts."""
    sent = {
        operator: Collective(operator, 12).sent(3)
        for operator in ("all_reduce", "reduce_scatter", "all_gather", "broadcast")
    }
    assert sent == {
        "all_reduce": pytest.approx(16),
        "reduce_scatter": pytest.approx(8),
        "all_gather": 24,
        "broadcast": 12,
    }


def test_a_plan_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="layers"):
        plan([], 2, Distribution())
