"""The cost model of docs/distributed.md, on layers small enough to count by hand."""

from __future__ import annotations

import pytest

from benchmarks.gpu.resnet50_layers import resnet50_layers
from benchmarks.scaling import DOCUMENT, costs, preconditioning, size_of, tables, updated
from ms_kfac.parallel import LayerSize

# 2 x 3 and 4 x 1 weights; the refresh costs 35 and 65 operations.
LAYERS = [LayerSize(3, 2), LayerSize(4, 1)]


def test_costs_of_two_ranks() -> None:
    found = costs(LAYERS, 2)
    # Ten weights of 4 bytes: a ring of two sends every one of them once.
    assert found.gradients == 40
    assert (found.refresh, found.balance) == (65, 50 / 65)
    # G⁻¹ dW A⁻¹ has 2 · 2·2·3 + 2 · 2·3·3 operations, and 2 · 1·1·4 + 2 · 1·4·4.
    assert [preconditioning(size) for size in LAYERS] == [60, 40]
    assert (found.precondition_all, found.precondition_own) == (100, 60)
    # 4² + 1² numbers, and 3² + 2².
    assert found.inverses_own == 4 * 17
    # Triangles of 6 + 3 and 10 + 1 numbers, each half of them sent twice; half of ten weights' U.
    assert (found.least_refresh, found.least_updates) == (4 * 20, 4 * 5)


def test_few_ranks_pad_their_parts_and_many_send_all_numbers() -> None:
    # Both parts count as 11 numbers, with 2 weights among the statistics. A ring of two sends half of what is
    # scattered and one part of what is gathered.
    assert costs(LAYERS, 2).inverses.sent_at_refresh() == 4 * (11 + 2) + 4 * 11
    assert costs(LAYERS, 2).updates.sent_at_refresh() == 4 * (11 + 2)
    found = costs(LAYERS, 4)
    assert found.inverses.sent_at_refresh() == 2 * 3 / 4 * 4 * (20 + 4) + 2 * 3 / 4 * 4 * 20
    assert found.least_refresh == 2 * 3 / 4 * 4 * 20
    # With an all-reduce, as on a CPU.
    assert costs(LAYERS, 2, "all_reduce").inverses.sent_at_refresh() == 4 * (20 + 4) + 4 * 11


def test_the_layers_are_those_of_resnet50() -> None:
    sizes = [size_of(layer) for layer in resnet50_layers()]
    # 25,557,032 parameters, 53,120 of them in BatchNorm.
    assert sum(size.weights() for size in sizes) == 25_557_032 - 53_120
    assert max(size.dim_A for size in sizes) == 9 * 512


def test_the_document_has_the_present_tables() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(table in text for table in tables().values()), "python -m benchmarks.scaling --update"
    assert updated(text) == text
    for name in tables():
        stale = text.replace(f"<!-- scaling: {name} -->\n", f"<!-- scaling: {name} -->\nstale\n")
        assert stale != text
        assert updated(stale) == text


def test_more_ranks_than_layers_help_no_further() -> None:
    with pytest.raises(ValueError, match="ranks"):
        costs(LAYERS, 0)
    assert costs(LAYERS, 2).refresh == costs(LAYERS, 1000).refresh == 65
