"""Thresholds let pass what the arithmetic does, and nothing much larger."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gpu import thresholds

ROWS, DIMENSION = 4096, 24


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - exact) / np.linalg.norm(exact))


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Rounds to numbers of so many significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent)


def truncated_sum(products: np.ndarray) -> np.ndarray:
    """Sums float32 numbers in order, and truncates each partial sum to float32."""
    total = np.zeros(products.shape[1:])
    for product in products:
        mantissa, exponent = np.frexp(total + product)
        total = np.ldexp(np.trunc(mantissa * 2.0**24) / 2.0**24, exponent)
    return total


def batch(positive: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """X, X^T X in float64, and its cancellation."""
    x = np.random.default_rng(3).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    x = (np.maximum(x, 0) if positive else x).astype(np.float64)
    exact = x.T @ x
    return x, exact, float(np.linalg.norm(abs(x).T @ abs(x)) / np.linalg.norm(exact))


def in_order(x: np.ndarray) -> np.ndarray:
    """X^T X by float32 sums over the rows in order."""
    total = np.zeros((DIMENSION, DIMENSION), np.float32)
    for row in x.astype(np.float32):
        total += np.outer(row, row)
    return total


@pytest.mark.parametrize("positive", [True, False])
def test_float32_covariance(positive: bool) -> None:
    x, exact, cancellation = batch(positive)
    threshold = thresholds.covariance("float32", ROWS, cancellation)
    assert relative_error(in_order(x), exact) < threshold / 3
    assert relative_error(in_order(x[: -ROWS // 100]), exact) > threshold
    # Operands of another precision than asked for.
    assert relative_error(in_order(rounded(x, 9)), exact) > threshold


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bfloat16", 8)])
def test_covariance_on_tensor_cores(precision: str, bits: int, positive: bool) -> None:
    x, exact, cancellation = batch(positive)
    operands = rounded(x, bits)
    if precision == "bfloat16":
        # Its operands come in bfloat16, so their rounding is no error.
        exact = operands.T @ operands
    found = truncated_sum(operands[:, :, None] * operands[:, None, :])
    threshold = thresholds.covariance(precision, ROWS, cancellation)
    assert relative_error(found, exact) < threshold
    half = x[: ROWS // 2] if precision == "tf32" else operands[: ROWS // 2]
    assert relative_error(half.T @ half, exact) > threshold


def test_inverse() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2 * 96, 96)) / np.sqrt(np.arange(1, 97))
    matrix = x.T @ x / len(x) + 0.01 * np.eye(96)
    exact = np.linalg.inv(matrix)
    condition = np.linalg.norm(matrix, 1) * np.linalg.norm(exact, 1)
    threshold = thresholds.inverse(96, float(condition))
    assert relative_error(np.linalg.inv(matrix.astype(np.float32)), exact) < threshold / 3
    assert relative_error(np.linalg.inv(matrix + 0.001 * np.eye(96)), exact) > threshold


def test_eigenbasis() -> None:
    rng = np.random.default_rng(6)
    x = (rng.standard_normal((2 * 96, 96)) / np.sqrt(np.arange(1, 97))).astype(np.float32)
    matrix = x.T @ x
    S, Q = np.linalg.eigh(matrix)
    threshold = thresholds.eigenbasis(96)

    def errors(vectors: np.ndarray) -> tuple[float, float]:
        Q = vectors.astype(np.float64)
        return relative_error(Q * S @ Q.T, matrix.astype(np.float64)), relative_error(Q.T @ Q, np.eye(96))

    assert max(errors(Q)) < threshold / 3
    assert min(errors(rounded(Q.astype(np.float64), 11))) > threshold


def test_precondition() -> None:
    rng = np.random.default_rng(7)
    G, D, A = (rng.standard_normal(shape).astype(np.float32) for shape in ((40, 40), (40, 90), (90, 90)))
    exact = G.astype(np.float64) @ D @ A
    threshold = thresholds.precondition("float32", 40, 90)
    assert relative_error(G @ D @ A, exact) < threshold
    left, middle, right = (rounded(array.astype(np.float64), 11) for array in (G, D, A))
    assert relative_error(left @ middle @ right, exact) > threshold
    threshold = thresholds.precondition("tf32", 40, 90)
    assert relative_error(left @ rounded(middle @ right, 11), exact) < threshold / 3
    left, middle, right = (rounded(array.astype(np.float64), 8) for array in (G, D, A))
    assert relative_error(left @ rounded(middle @ right, 8), exact) > threshold
    # In order, as no kernel sums; without the last row.
    products = (D.astype(np.float64) * exact).ravel()
    found = np.cumsum((D * (G @ D @ A)).ravel(), dtype=np.float32)
    allowed = thresholds.inner_product("float32", 40, 90) * abs(products.sum())
    assert abs(found[-1] - products.sum()) < allowed < abs(found[-1 - 90] - products.sum())


def test_momentum() -> None:
    rng = np.random.default_rng(9)
    updates, weights = rng.standard_normal((2, 1000)).astype(np.float32)

    def steps(dtype: type, rate: float) -> np.ndarray:
        w, moment = weights.astype(dtype), np.zeros(1000, dtype)
        for _ in range(2):
            moment = dtype(0.9) * moment + dtype(0.5) * updates.astype(dtype) + dtype(1e-4) * w
            w = w - dtype(rate) * moment
        return w

    exact = steps(np.float64, 0.01)
    assert relative_error(steps(np.float32, 0.01), exact) < thresholds.momentum() / 3
    assert relative_error(steps(np.float64, 0.01001), exact) > thresholds.momentum()
