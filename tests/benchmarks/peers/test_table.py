"""Costs at any intervals from the medians of the kinds of steps, and the table of them."""

from __future__ import annotations

import pytest

from benchmarks.peers.table import step_cost, table

ROW = {
    "problem": "convnet",
    "library": "ours",
    "version": "1.0",
    "error": "",
    **{f"{kind}_{part}": "" for kind in ("sgd", "kept", "factors", "everything") for part in ("low", "high")},
    **{"sgd_ms": "100", "kept_ms": "104", "factors_ms": "124", "everything_ms": "224"},
    **{"kept_low": "102", "kept_high": "105", "sgd_mib": "500", "everything_mib": "530"},
}


@pytest.mark.parametrize(("intervals", "expected"), [((1, 1), 2.24), ((10, 100), 1.07), ((100, 100), 1.052)])
def test_costs_at_intervals(intervals: tuple[int, int], expected: float) -> None:
    assert step_cost(ROW, *intervals) == pytest.approx(expected)


def test_without_separate_statistics_the_intervals_must_be_equal() -> None:
    row = {**ROW, "factors_ms": ""}
    assert step_cost(row, 10, 100) is None
    assert step_cost(row, 10, 10) == pytest.approx(1.16)


def test_the_table_has_a_row_per_library_and_the_reason_of_a_failure() -> None:
    failed = {**ROW, "library": "theirs", "error": "ValueError: no"}
    lines = table([ROW, failed]).splitlines()
    ours = next(line for line in lines if line.startswith("| ours"))
    assert ours == ("| ours (1.0) | 100.0 | 1.040 (1.020 to 1.050) | 2.24 | 1.07 | 1.05 | 0.20 | 1.00 | 30 |")
    theirs = next(line for line in lines if line.startswith("| theirs"))
    assert "ValueError: no" in theirs
    assert theirs.count("|") == ours.count("|")
