"""Numbers per step, as the damping and the KL clip take them."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from ms_kfac.ops.step.number_schedule import NumberSchedule, positive_schedule


def values(schedule: NumberSchedule, steps: int) -> list[float]:
    return [float(schedule(ms.Tensor([step], ms.int32)).asnumpy()) for step in range(steps)]


def test_schedules(mode: int) -> None:
    assert values(positive_schedule("damping", 0.5), 2) == [0.5, 0.5]
    assert values(positive_schedule("damping", [0.5, 0.25]), 4) == [0.5, 0.25, 0.25, 0.25]
    halving = nn.ExponentialDecayLR(0.5, 0.5, 1)
    np.testing.assert_allclose(
        values(positive_schedule("damping", halving), 3), [0.5, 0.25, 0.125], rtol=1e-6
    )


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan"), float("inf"), [], [0.1, 0.0], [[0.1]]])
def test_bad_values_are_refused(damping: object) -> None:
    with pytest.raises((TypeError, ValueError), match="damping must be"):
        positive_schedule("damping", damping)  # type: ignore[arg-type]


@pytest.mark.parametrize("damping", [None, "0.1", True, {"a": 1}])
def test_bad_types_are_refused(damping: object) -> None:
    with pytest.raises(TypeError, match="damping must be"):
        positive_schedule("damping", damping)  # type: ignore[arg-type]
