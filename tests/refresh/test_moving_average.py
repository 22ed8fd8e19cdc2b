"""The decay of weighted sums against the recursion that it stands for."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from ms_kfac.refresh import MovingAverage


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.93, 0.95])
def test_weighted_sums_give_the_recursion(mode: int, decay: float) -> None:
    average = MovingAverage(decay, name="test")
    batches = np.random.default_rng(0).standard_normal(30)
    total = weight = estimate = 0.0
    for k, batch in enumerate(batches, start=1):
        total, weight = total + 7 * batch, weight + 7
        epsilon = min(1 - 1 / k, decay)
        estimate = epsilon * estimate + (1 - epsilon) * batch
        # The decays are float32 numbers, multiplied up to k times; decay 0 keeps 1e-8 of the past.
        assert total / weight == pytest.approx(estimate, abs=1.2e-7 * 30 * np.abs(batches).max())
        d = float(average(ms.Tensor(1.0)).asnumpy())
        total, weight = d * total, d * weight


def test_statistics_that_are_not_due_keep_their_past(mode: int) -> None:
    """Of two statistics, one due at every step and one at the even ones, each has the weights of its own."""
    both = MovingAverage(0.5, name="both", statistics=2)
    single = [MovingAverage(0.5, name=f"single{i}") for i in range(2)]
    for step in range(6):
        due = np.array([1.0, float(step % 2 == 0)], np.float32)
        found = both(ms.Tensor(due)).asnumpy()
        for i in range(2):
            expected = single[i](ms.Tensor(1.0)).asnumpy() if due[i] else 1.0
            assert found[i] == expected
