"""Normalised inputs and unit-wise sums against their definitions, over random shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.statistics.normalized_inputs import (
    BatchNormalizedInputs,
    ChannelColumns,
    ChannelRows,
    LayerNormalizedInputs,
)
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseSecondMoment
from tests.oracle.unit_wise import batch_normalized, layer_normalized, unit_wise_fisher
from tests.support.bank import tensor

SIZES = st.integers(1, 4)


def assert_sums(sums: tuple[object, ...], F: np.ndarray, samples: int) -> None:
    """Sums over at most 256 float32 terms of order 1 to 10: 1e-7 √256 and the cancellation within them."""
    for found, (row, column) in zip(sums, ((0, 0), (0, 1), (1, 1))):
        expected = F[:, row, column] * samples
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5, atol=2e-5 * (1 + F.max() * samples))


@settings(max_examples=15)
@given(st.integers(2, 5), SIZES, st.lists(SIZES, max_size=3), st.floats(1e-5, 1.0), st.integers(0, 99))
def test_batch_norm(samples: int, channels: int, image: list[int], epsilon: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (3 + rng.standard_normal((samples, channels, *image))).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    x_hat = BatchNormalizedInputs(epsilon)(tensor(x))
    expected = np.moveaxis(batch_normalized(x, epsilon), -1, 1).reshape(samples, channels, -1)
    # Two samples per channel may lie close together: float32's rounding of x, 3e-7, over a spread of √1e-5.
    np.testing.assert_allclose(x_hat.asnumpy(), expected, atol=2e-4)
    sums = UnitWiseSecondMoment(2)(x_hat, ChannelColumns()(tensor(g)))
    F = unit_wise_fisher(np.moveaxis(x_hat.asnumpy(), 1, -1), np.moveaxis(g.reshape(expected.shape), 1, -1))
    assert_sums(sums, F, samples)


@settings(max_examples=15)
@given(
    SIZES,
    st.lists(SIZES, max_size=2),
    st.lists(st.integers(2, 4), min_size=1, max_size=2),
    st.floats(1e-5, 1.0),
    st.integers(0, 99),
)
def test_layer_norm(
    samples: int, positions: list[int], normalized: list[int], epsilon: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = (3 + rng.standard_normal((samples, *positions, *normalized))).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    channels = int(np.prod(normalized))
    x_hat = LayerNormalizedInputs(epsilon, channels)(tensor(x))
    expected = layer_normalized(x, len(normalized), epsilon).reshape(samples, -1, channels)
    np.testing.assert_allclose(x_hat.asnumpy(), expected, atol=2e-4)
    sums = UnitWiseSecondMoment(1)(x_hat, ChannelRows(channels)(tensor(g)))
    assert_sums(sums, unit_wise_fisher(x_hat.asnumpy(), g.reshape(expected.shape)), samples)
