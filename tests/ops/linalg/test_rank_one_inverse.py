"""Sherman-Morrison's formula against a dense inverse, over random shapes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.linalg.rank_one_inverse import RankOneInverse


@settings(max_examples=20)
@given(st.integers(1, 12), st.integers(0, 3), st.floats(0.01, 10.0))
def test_equals_the_dense_inverse(dimension: int, groups: int, weight: float) -> None:
    rng = np.random.default_rng(100 * dimension + groups)
    leading = (groups,) if groups else ()
    root = rng.standard_normal((*leading, dimension, dimension + 2))
    P = root @ np.swapaxes(root, -1, -2) + np.eye(dimension)
    u = rng.standard_normal((*leading, dimension))
    expected = np.linalg.inv(P + weight * u[..., :, None] * u[..., None, :])

    inverse = ms.Tensor(np.linalg.inv(P), ms.float32)
    found = RankOneInverse(weight)(inverse, ms.Tensor(u, ms.float32)).asnumpy()

    # X has no eigenvalue above 1, and the subtraction cancels digits of X: ε times |X| times the dimension.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * 1.2e-7 * (dimension + 8))
