"""The split of the damping and its schedules."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from ms_kfac.damping import DampingSchedule, pi_split


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


def values(schedule: DampingSchedule, steps: int) -> list[float]:
    return [float(schedule(ms.Tensor([step], ms.int32)).asnumpy()) for step in range(steps)]


def test_schedules(mode: int) -> None:
    assert values(DampingSchedule(0.5), 2) == [0.5, 0.5]
    assert values(DampingSchedule([0.5, 0.25]), 4) == [0.5, 0.25, 0.25, 0.25]
    halving = nn.ExponentialDecayLR(0.5, 0.5, 1)
    np.testing.assert_allclose(values(DampingSchedule(halving), 3), [0.5, 0.25, 0.125], rtol=1e-6)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan"), float("inf"), [], [0.1, 0.0], [[0.1]]])
def test_bad_values_are_refused(damping: object) -> None:
    with pytest.raises((TypeError, ValueError), match="damping must be"):
        DampingSchedule(damping)  # type: ignore[arg-type]


@pytest.mark.parametrize("damping", [None, "0.1", True, {"a": 1}])
def test_bad_types_are_refused(damping: object) -> None:
    with pytest.raises(TypeError, match="damping must be"):
        DampingSchedule(damping)  # type: ignore[arg-type]
