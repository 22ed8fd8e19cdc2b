"""SP-NGD: K-FAC where everything is refreshed, and its own policies by default."""

from __future__ import annotations

import numpy as np
import pytest

import ms_kfac
from tests.support.loops import train_by
from tests.support.networks import SmallNet, batches, weights_of


def test_is_kfac_where_nothing_is_similar(mode: int) -> None:
    """Similarity near 0: statistics and inverses at every step, no moving average."""
    weights = []
    kfac = (ms_kfac.KFAC, {"factor_interval": 1, "inverse_interval": 1, "factor_decay": 0.0})
    spngd = (ms_kfac.SPNGD, {"similarity": 1e-9, "normalization": "first_order"})
    for method, options in (kfac, spngd):
        net = SmallNet()
        optimizer = method(net, 0.1, damping=0.01, **options)
        train_by("cell", net, optimizer, batches(5))
        weights.append(weights_of(net, np.float32))
    for name, weight in weights[0].items():
        # The same products in another compiled graph.
        np.testing.assert_allclose(weights[1][name], weight, rtol=0, atol=1e-5, err_msg=name)


def test_defaults_are_its_policies() -> None:
    optimizer = ms_kfac.SPNGD(SmallNet(), 0.1)
    assert "when they differ by more than 0.1" in repr(optimizer)
    assert "with new statistics" in repr(optimizer)
    assert "unit-wise" in optimizer.summary()


@pytest.mark.parametrize("value", [0.0, -1.0, "0.1"])
def test_similarity_is_checked(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match="similarity"):
        ms_kfac.SPNGD(SmallNet(), 0.1, similarity=value)
