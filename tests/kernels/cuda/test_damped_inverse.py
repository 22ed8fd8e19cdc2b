"""Damped inverses of the CUDA operators: accuracy, and factors that cannot be inverted."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.cuda_refreshes import Layer, Refresh, kronecker_oracle, old, skfac


def factor(size: int, condition: float, rng: np.random.Generator) -> np.ndarray:
    """A symmetric matrix with this condition number and log-spaced eigenvalues."""
    vectors, _ = np.linalg.qr(rng.standard_normal((size, size)))
    matrix = (vectors * np.geomspace(1.0, 1 / condition, size)) @ vectors.T
    return (matrix + matrix.T) / 2


def layer(A: np.ndarray, G: np.ndarray) -> Layer:
    """A layer whose factors are sums over one sample."""
    return Layer([A, G, np.ones(2), old(*A.shape), old(*G.shape)], kronecker_oracle, {"splits": 1})


# Sizes around tile boundaries. The last two use tiles of 128, with an odd and an even number of panels.
@pytest.mark.parametrize("sizes", [(1, 3), (63, 64), (65, 130), (200, 128), (300, 384)], ids=str)
@pytest.mark.parametrize("condition", [1e2, 1e5])
def test_any_size_and_condition(
    operators: AotLibrary, sizes: tuple[int, int], condition: float, rng: np.random.Generator
) -> None:
    case = layer(*(factor(size, condition, rng) for size in sizes))
    refresh = Refresh(operators, "KroneckerRefresh", [case], 1e-14)
    refresh.run()
    refresh.check(0)
    for inverse in refresh.arrays[0][3:]:
        np.testing.assert_array_equal(inverse, inverse.T)


def test_threads_in_any_order(operators: AotLibrary, rng: np.random.Generator, schedule: int) -> None:
    refresh = Refresh(
        operators, "KroneckerRefresh", [layer(factor(130, 1e2, rng), factor(321, 1e2, rng))], 1e-3
    )
    refresh.run()
    refresh.check(0)


def test_low_rank_of_many_panels(operators: AotLibrary, rng: np.random.Generator) -> None:
    layers = [skfac(300, 2, 290, rng), skfac(200, 130, 135, rng)]
    refresh = Refresh(operators, "SKFACRefresh", layers, 0.1)
    refresh.run()
    for index in (0, 1):
        refresh.check(index)


def warnings(library: AotLibrary) -> str:
    size = library.library.ms_kfac_warnings(None, 0) + 1
    buffer = ctypes.create_string_buffer(size)
    library.library.ms_kfac_warnings(buffer, size)
    return buffer.value.decode()


def test_damping_grows_until_it_suffices(operators: AotLibrary, rng: np.random.Generator) -> None:
    # Traces of 1 and dimensions of 2, so that both dampings are sqrt(lambda) = 1e-4.
    indefinite = np.diag([1.01, -0.01])
    refresh = Refresh(
        operators,
        "KroneckerRefresh",
        [layer(indefinite, np.diag([0.5, 0.5])), layer(*[np.eye(70)] * 2)],
        1e-8,
    )
    # With 1e-4, 1e-3 and 1e-2 the factor is indefinite, or singular up to rounding.
    for growth in (10, 100, 1000):
        refresh.run()
        refresh.check(1)
        np.testing.assert_array_equal(refresh.arrays[0][3], 7.0)
        assert refresh.arrays[0][4][0, 0] != 7.0
        refresh.due[...] = 0
        refresh.run()
        told = "layer 0: factor A is not positive definite with its damping: its inverse stays as it was"
        assert f"{told}, and its damping is {growth} times as large" in warnings(operators)
        refresh.due[...] = 1
    for _ in range(2):
        refresh.run()
        inverse = np.linalg.inv(indefinite + 0.1 * np.eye(2))
        # The condition number is 12, so the error is a few times 12 * 2^-24.
        np.testing.assert_allclose(refresh.arrays[0][3], inverse, rtol=1e-5)


def test_a_pivot_that_is_lost_in_rounding(operators: AotLibrary, rng: np.random.Generator) -> None:
    # [[1, 1], [1, 1]] with a damping of 1e-9 is positive definite, but not in float32.
    ones = np.ones((2, 2))
    refresh = Refresh(operators, "KroneckerRefresh", [layer(ones, ones)], 1e-18)
    refresh.run()
    assert all((inverse == 7.0).all() for inverse in refresh.arrays[0][3:])
    # After a failure the damping is at least 1e-7 of the trace, which is 2, times the power of ten that it
    # needs.
    refresh.run()
    for inverse in refresh.arrays[0][3:]:
        # The inverse has the eigenvalue 1 / e for (1, -1), with e rounded to float32 next to 1.
        damping = 1 / (inverse[0, 0] - inverse[0, 1])
        assert 1e-7 < damping < 3e-7


def test_damping_beyond_the_trace_is_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    # Eigenvalues 5.1 and -4.9; the trace is 0.2.
    A = np.array([[0.1, 5.0], [5.0, 0.1]])
    refresh = Refresh(operators, "KroneckerRefresh", [layer(A, np.eye(2) / 10)], 1e-6)
    for _ in range(3):
        refresh.run()
    # After dampings of 1e-3, 1e-2 and 0.1, the next one, 1.0, is beyond the trace.
    refresh.run()
    np.testing.assert_array_equal(refresh.arrays[0][3], 7.0)
    refresh.due[...] = 0
    with pytest.raises(
        AotError, match="layer 0: factor A is not positive definite with damping beyond its trace"
    ):
        refresh.run()
    refresh.run()


def test_rows_that_are_lost_in_rounding(operators: AotLibrary, rng: np.random.Generator) -> None:
    """The small matrix of the Woodbury identity fails the same way. Solver and damping stay consistent."""
    case = skfac(6, 5, 2, rng, splits=False)
    # Two equal rows.
    case.arrays[0][1] = case.arrays[0][0]
    refresh = Refresh(operators, "SKFACRefresh", [case], 1e-18)
    refresh.run()
    A_rows, _, _, A_solver, _, A_damping, G_damping, ranks = refresh.arrays[0]
    np.testing.assert_array_equal(A_solver, 7.0)
    assert A_damping == 7.0
    assert G_damping == np.float32(1e-9)
    np.testing.assert_array_equal(ranks, [0, 2])
    for _ in range(3):
        refresh.run()
    np.testing.assert_array_equal(ranks, [2, 2])
    X = A_rows[:2].astype(np.float64) / np.sqrt(2)
    trace = (X**2).sum()
    assert 1e-8 * trace < A_damping < 1e-4 * trace
    assert (A_solver != 7.0).all()
