"""Counts of ids against second moments of written-out one-hot vectors, over random shapes."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.statistics.embedding_statistics import IdCounts
from tests.oracle.factors import shared_factors


@settings(max_examples=20)
@given(
    st.integers(1, 5),
    st.lists(st.integers(1, 4), max_size=2),
    st.integers(1, 6),
    st.sampled_from(["expand", "reduce"]),
    st.sampled_from([ms.int32, ms.int64]),
    st.integers(0, 99),
)
def test_counts(
    samples: int, locations: list[int], vocabulary: int, sharing: str, dtype: object, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, vocabulary, (samples, *locations))
    one_hot = np.eye(vocabulary)[ids].reshape(samples, -1, vocabulary)
    A, _ = shared_factors(one_hot, one_hot, False, sharing)
    found = IdCounts(vocabulary, reduce=sharing == "reduce")(ms.Tensor(ids, dtype))
    # Counts are whole; 1/T² rounds once.
    np.testing.assert_allclose(found.asnumpy(), samples * np.diag(A), rtol=1e-6)


@pytest.mark.parametrize("reduce", [False, True])
def test_ids_outside_of_the_table_are_not_counted(mode: int, reduce: bool) -> None:
    found = IdCounts(3, reduce=reduce)(ms.Tensor([[0, 3], [-1, 2], [7, -5]], ms.int32))
    count = 0.25 if reduce else 1.0
    np.testing.assert_array_equal(found.asnumpy(), np.array([count, 0.0, count], np.float32))
