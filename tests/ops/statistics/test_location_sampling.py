"""Random locations: distinct, all of them in turn, drawn anew, the ones asked for."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from ms_kfac.ops.graph.counter_based_rng import rng_state
from ms_kfac.ops.statistics.location_sampling import LocationSampling


def test_draws_are_distinct_and_cover_all_locations_evenly() -> None:
    ms.set_seed(3)
    batch, locations, samples = 4000, 7, 3
    sampling = LocationSampling(samples)
    state = rng_state("draws")
    drawn = sampling.draw(state, batch, locations).asnumpy()
    assert drawn.shape == (batch, samples)
    assert all(len(set(row)) == samples for row in drawn.tolist())
    counts = np.bincount(drawn.reshape(-1), minlength=locations)
    # Each count is binomial with p = 3/7: five standard deviations.
    p = samples / locations
    assert np.abs(counts - batch * p).max() < 5 * np.sqrt(batch * p * (1 - p))
    assert not np.array_equal(drawn, sampling.draw(state, batch, locations).asnumpy())


def test_the_seed_decides() -> None:
    draws = []
    for seed in (11, 11, 12):
        ms.set_seed(seed)
        draws.append(LocationSampling(2).draw(rng_state("draws"), 20, 9).asnumpy())
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize("leading", [(3, 4), (3, 2, 4)])
def test_gathers_the_columns_drawn(leading: tuple[int, ...]) -> None:
    columns = np.random.default_rng(0).standard_normal((*leading, 6)).astype(np.float32)
    indices = np.array([[5, 0], [2, 3], [1, 1]], np.int32)
    found = LocationSampling(2)(ms.Tensor(columns), ms.Tensor(indices)).asnumpy()
    for n in range(3):
        np.testing.assert_array_equal(found[n], columns[n][..., indices[n]])
