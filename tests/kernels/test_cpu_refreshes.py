"""Refreshes of the CPU's library read what a commit leaves: sums, and one vector of weights per layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.support.aot import AotLibrary
from ms_kfac.kernels.library import library

pytestmark = pytest.mark.skipif(not library("CPU").path, reason=library("CPU").reason)

# Inverses of well-conditioned matrices of a few rows, in float32.
TOLERANCE = 1e-4
LAMBDA = 0.3
# That of A and that of G differ, so that one can't stand for the other.
WEIGHTS = (6.5, 40.0)


def definite(rng: np.random.Generator, size: int) -> np.ndarray:
    vectors = rng.standard_normal((3 * size, size))
    return (vectors.T @ vectors).astype(np.float32)


def refresh(aot: AotLibrary, name: str, arrays: list[np.ndarray], **attributes: Any) -> None:
    inputs = [np.array(1, np.int32), np.array(LAMBDA, np.float32), *arrays]
    aot.operator(name, inputs, [np.zeros(1, np.float32)], layers="layer\n", **attributes).run()


def damped(sums: list[np.ndarray], splits: bool = True) -> list[np.ndarray]:
    """A + sqrt(lambda) pi I and G + sqrt(lambda) / pi I, with pi = 1 where traces don't split it."""
    A, G = (matrix.astype(np.float64) / weight for matrix, weight in zip(sums, WEIGHTS))
    pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G))) if splits else 1.0
    return [
        A + np.sqrt(LAMBDA) * pi * np.eye(len(A)),
        G + np.sqrt(LAMBDA) / pi * np.eye(len(G)),
    ]


def assert_inverse(found: np.ndarray, matrix: np.ndarray) -> None:
    np.testing.assert_allclose(found @ matrix, np.eye(len(matrix)), rtol=0, atol=TOLERANCE)


splitting = pytest.mark.parametrize("splits", [True, False], ids=["pi", "none"])


@splitting
def test_kronecker_refresh(aot: AotLibrary, rng: np.random.Generator, splits: bool) -> None:
    sums, inverses = [definite(rng, 6), definite(rng, 4)], [np.zeros((n, n), np.float32) for n in (6, 4)]
    arrays = [*sums, np.array(WEIGHTS, np.float32), *inverses]
    refresh(aot, "KroneckerRefresh", arrays, splits=[int(splits)])
    for found, matrix in zip(inverses, damped(sums, splits)):
        assert_inverse(found, matrix)


def test_a_layer_without_statistics_gets_identities(aot: AotLibrary, rng: np.random.Generator) -> None:
    sums, inverses = [definite(rng, 6), definite(rng, 4)], [np.zeros((n, n), np.float32) for n in (6, 4)]
    refresh(aot, "KroneckerRefresh", [*sums, np.zeros(2, np.float32), *inverses], splits=[1])
    for found in inverses:
        np.testing.assert_array_equal(found, np.eye(len(found)))


@splitting
def test_block_split_refresh(aot: AotLibrary, rng: np.random.Generator, splits: bool) -> None:
    sums = [definite(rng, 7), definite(rng, 2)]
    # Two blocks of three and one of one; a single one of two.
    shapes = ((2, 3, 3), (1, 1), (1,), (2, 2))
    blocks = [np.zeros(shape, np.float32) for shape in shapes]
    arrays = [*sums, np.array(WEIGHTS, np.float32), *blocks]
    refresh(aot, "BlockSplitRefresh", arrays, split=[3], splits=[int(splits)])
    A, G = damped(sums, splits)
    assert_inverse(blocks[0][0], A[:3, :3])
    assert_inverse(blocks[0][1], A[3:6, 3:6])
    assert_inverse(blocks[1], A[6:, 6:])
    assert_inverse(blocks[3], G)


def test_skfac_refresh_of_more_weight_than_rows(aot: AotLibrary, rng: np.random.Generator) -> None:
    size, rank = 6, 2
    A_rows, G_sums = rng.standard_normal((size, size)).astype(np.float32), definite(rng, 4)
    weights = np.array([*WEIGHTS, rank, len(G_sums)], np.float32)
    solvers = [np.zeros_like(A_rows), np.zeros_like(G_sums)]
    dampings, ranks = [np.zeros(1, np.float32) for _ in range(2)], np.zeros(2, np.float32)
    refresh(aot, "SKFACRefresh", [A_rows, G_sums, weights, *solvers, *dampings, ranks], splits=[1])
    rows = A_rows[:rank].astype(np.float64)
    A, G = damped([(rows.T @ rows).astype(np.float32), G_sums])
    Z = solvers[0].astype(np.float64)
    assert_inverse((np.eye(size) - Z.T @ Z) / dampings[0][0], A)
    assert_inverse(solvers[1], G)
    np.testing.assert_array_equal(ranks, [rank, len(G_sums)])
