"""The fallback's Cholesky decomposition: a compiled function outlives whatever matrix it gets."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.linalg.guarded_cholesky import decomposed


def with_eigenvalues(values: list[float], rng: np.random.Generator) -> np.ndarray:
    Q, _ = np.linalg.qr(rng.standard_normal((len(values), len(values))))
    return np.asarray((Q * values) @ Q.T, np.float32)


def test_the_lower_triangle_of_each_matrix(rng: np.random.Generator) -> None:
    batch = np.stack([with_eigenvalues([1.0, 2.0, 5.0], rng) for _ in range(3)])
    L = decomposed(batch)
    # Some roundings of numbers around 1.
    np.testing.assert_allclose(L @ np.swapaxes(L, -1, -2), batch, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(L, np.tril(L))
    np.testing.assert_array_equal(decomposed(batch[1]), L[1])


@pytest.mark.parametrize("smallest", [-1e-6, -1e-3, -0.5])
def test_damping_grows_until_it_suffices(smallest: float, rng: np.random.Generator) -> None:
    matrix = with_eigenvalues([smallest, 1.0, 3.0], rng)
    with pytest.warns(
        UserWarning, match="not positive definite in float32: it was inverted with more damping"
    ):
        L = decomposed(matrix)
    added = L @ L.T - matrix
    shift = np.trace(added) / 3
    # At most ten times what is needed.
    assert -smallest < shift < 11 * -smallest
    np.testing.assert_allclose(added, shift * np.eye(3), rtol=0, atol=2e-6 * max(shift, 1))


def test_what_float64_can_decompose_needs_no_damping() -> None:
    # Determinant 2^-23: a pivot that float32 may round to zero.
    matrix = np.array([[np.nextafter(np.float32(1), np.float32(2)), 1], [1, 1]], np.float32)
    assert np.isfinite(decomposed(matrix)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_compiled_function_goes_on_after_a_hopeless_matrix(value: float, mode: int) -> None:
    """1e30 off the diagonal is finite, and beyond any damping up to the trace."""
    inverse = DampedInverse()
    compiled = ms.jit(inverse.construct) if mode == ms.PYNATIVE_MODE else inverse
    damping = Tensor(0.5, ms.float32)
    fine = np.array([[1.5, 1], [1, 2]], np.float32)
    for _ in range(2):
        found = compiled(Tensor(np.array([[1, value], [value, 1]], np.float32)), damping)
        assert np.isnan(found.asnumpy()).all()
        found = compiled(Tensor(fine), damping)
        # A condition number below 4, times float32's 6e-8.
        np.testing.assert_allclose(
            found.asnumpy(), np.linalg.inv(fine.astype(np.float64) + 0.5 * np.eye(2)), rtol=0, atol=1e-6
        )
