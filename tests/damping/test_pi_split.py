"""The split of the damping between two factors."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from ms_kfac.damping import pi_split


def scalar(value: float) -> ms.Tensor:
    return ms.Tensor(value, ms.float32)


def test_pi_split(mode: int) -> None:
    on_A, on_G = pi_split(scalar(6.0), 3, scalar(0.5), 4, scalar(0.01))
    pi = np.sqrt((6.0 / 3) / (0.5 / 4))
    assert float(on_A.asnumpy()) == pytest.approx(0.1 * pi, rel=1e-6)
    assert float(on_G.asnumpy()) == pytest.approx(0.1 / pi, rel=1e-6)


@pytest.mark.parametrize(("trace_A", "trace_G"), [(0.0, 2.0), (2.0, 0.0), (0.0, 0.0)])
def test_a_zero_trace_splits_evenly(mode: int, trace_A: float, trace_G: float) -> None:
    on_A, on_G = pi_split(scalar(trace_A), 3, scalar(trace_G), 4, scalar(0.04))
    assert float(on_A.asnumpy()) == pytest.approx(0.2, rel=1e-6)
    assert float(on_G.asnumpy()) == pytest.approx(0.2, rel=1e-6)
