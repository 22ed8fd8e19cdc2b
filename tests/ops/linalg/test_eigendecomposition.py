"""Eigenvectors and eigenvalues, one matrix or a batch, of full and of low rank."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.linalg.eigendecomposition import Eigendecomposition


@settings(max_examples=12)
@given(st.integers(1, 12), st.integers(0, 3), st.integers(1, 14))
def test_restores_the_matrix(dimension: int, groups: int, rank: int) -> None:
    rng = np.random.default_rng(100 * dimension + 10 * groups + rank)
    root = rng.standard_normal((*((groups,) if groups else ()), dimension, rank))
    F = root @ np.swapaxes(root, -1, -2)

    values, vectors = (t.asnumpy().astype(np.float64) for t in Eigendecomposition()(ms.Tensor(F, ms.float32)))

    assert values.shape == F.shape[:-1]
    assert (values >= 0).all()
    # A few ε of the largest eigenvalue; d ε for the products of the vectors.
    restored = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    np.testing.assert_allclose(restored, F, rtol=0, atol=2e-6 * values.max())
    identity = np.swapaxes(vectors, -1, -2) @ vectors
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(dimension), F.shape), rtol=0, atol=5e-6)
