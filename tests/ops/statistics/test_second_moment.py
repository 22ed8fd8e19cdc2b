"""Sums of outer products against float64 NumPy, on both sides of the choice of buffer."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.statistics.second_moment import ColumnSecondMoment, RowSecondMoment


def assert_close(actual: ms.Tensor, expected: np.ndarray, terms: int) -> None:
    # Rounding of a float32 sum of so many products of standard normals grows with the root of their number.
    tolerance = 1.2e-7 * 8 * np.sqrt(terms) * max(1.0, float(np.abs(expected).max()) / np.sqrt(terms))
    np.testing.assert_allclose(actual.asnumpy(), expected, rtol=0, atol=tolerance)


@settings(max_examples=10)
@given(st.integers(1, 40), st.integers(1, 12))
def test_rows(rows: int, dimension: int) -> None:
    x = np.random.default_rng(rows * 100 + dimension).standard_normal((rows, dimension), dtype=np.float32)
    expected = x.astype(np.float64).T @ x.astype(np.float64)
    assert_close(RowSecondMoment()(ms.Tensor(x)), expected, rows)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("locations", [1, 3, 4, 20])  # d = 8: side by side for 1 and 3, products for 4 and 20
def test_columns(mode: int, groups: int, locations: int) -> None:
    shape = (5, 8, locations) if groups == 1 else (5, groups, 8, locations)
    x = np.random.default_rng(locations).standard_normal(shape, dtype=np.float32)
    expected = np.einsum("n...dt,n...et->...de", x.astype(np.float64), x.astype(np.float64))
    assert_close(ColumnSecondMoment()(ms.Tensor(x)), expected, 5 * locations)
