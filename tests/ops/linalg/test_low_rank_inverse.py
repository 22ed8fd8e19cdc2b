"""Woodbury's identity against a dense solve, for fewer rows than d, as many, and more."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.linalg.low_rank_inverse import LowRankInverse


def check(rows: int, dimension: int, groups: int, damping: float) -> None:
    rng = np.random.default_rng(rows * 1000 + dimension * 10 + groups)
    leading = () if groups == 1 else (groups,)
    X = rng.standard_normal((*leading, rows, dimension)).astype(np.float32)
    right = rng.standard_normal((*leading, 3, dimension)).astype(np.float32)
    left = np.swapaxes(right, -1, -2).copy()
    operator = LowRankInverse(groups=groups)

    Z = operator(ms.Tensor(X), ms.Tensor(damping, ms.float32))
    found_right = (ms.Tensor(right) - operator.projected_right(ms.Tensor(right), Z)) / damping
    found_left = (ms.Tensor(left) - operator.projected_left(ms.Tensor(left), Z)) / damping

    exact = X.astype(np.float64)
    factor = np.swapaxes(exact, -1, -2) @ exact + damping * np.eye(dimension)
    expected = np.swapaxes(np.linalg.solve(factor, left.astype(np.float64)), -1, -2)
    # Rounding the small matrix M = D I + X Xᵀ and its decomposition moves Zᵀ Z by ε κ(M), and H - H Zᵀ Z is
    # divided by D.
    small = exact @ np.swapaxes(exact, -1, -2) + damping * np.eye(rows)
    condition = np.linalg.cond(small).max()
    tolerance = np.finfo(np.float32).eps * condition * np.abs(right).max() / damping
    np.testing.assert_allclose(found_right.asnumpy(), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.swapaxes(found_left.asnumpy(), -1, -2), expected, rtol=0, atol=tolerance)


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.sampled_from([0.03, 0.3, 3.0]))
def test_any_shape(rows: int, dimension: int, groups: int, damping: float) -> None:
    check(rows, dimension, groups, damping)


@pytest.mark.parametrize(("rows", "dimension"), [(4, 9), (9, 9), (15, 9)])
def test_rows_around_the_dimension(rows: int, dimension: int) -> None:
    check(rows, dimension, 1, 0.1)


def test_rows_of_zeros_change_nothing() -> None:
    X = np.random.default_rng(5).standard_normal((3, 8)).astype(np.float32)
    padded = np.concatenate([X, np.zeros((4, 8), np.float32)])
    operator, damping = LowRankInverse(groups=1), ms.Tensor(0.2, ms.float32)
    Z, Z_padded = operator(ms.Tensor(X), damping).asnumpy(), operator(ms.Tensor(padded), damping).asnumpy()
    np.testing.assert_allclose(Z_padded[:3], Z, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(Z_padded[3:], 0.0)
