"""Intervals that change on the way, against the same rule in plain Python."""

from __future__ import annotations

import mindspore as ms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ms_kfac
from tests.support.networks import SmallNet


def due_steps(intervals: dict[int, int], steps: int) -> list[int]:
    due = []
    for step in range(steps):
        first = max(start for start in intervals if start <= step)
        if (step - first) % intervals[first] == 0:
            due.append(step)
    return due


@settings(max_examples=15)
@given(later=st.dictionaries(st.integers(1, 30), st.integers(1, 9), max_size=3), first=st.integers(1, 9))
def test_due_steps(later: dict[int, int], first: int) -> None:
    intervals = {0: first, **later}
    policy = ms_kfac.IntervalSchedule(intervals)
    found = [step for step in range(40) if bool(policy(ms.Tensor([step], ms.int32)).asnumpy().all())]
    assert found == due_steps(intervals, 40)


@pytest.mark.parametrize(
    "intervals", [{}, {1: 5}, {0: 0}, {0: 1.5}, {0: 1, -1: 2}, {0: True}], ids=lambda value: repr(value)
)
def test_refused(intervals: dict[int, int]) -> None:
    with pytest.raises((TypeError, ValueError), match="intervals"):
        ms_kfac.IntervalSchedule(intervals)


def test_no_mapping_is_refused() -> None:
    with pytest.raises(TypeError, match="mapping"):
        ms_kfac.IntervalSchedule([1, 2])


def test_any_method_accepts_an_interval_schedule() -> None:
    policy = ms_kfac.IntervalSchedule({0: 1, 50: 10})
    for method in (ms_kfac.KFAC, ms_kfac.SPNGD, ms_kfac.THOR):
        optimizer = method(SmallNet(), 0.1, factor_interval=policy, inverse_interval=policy)
        assert "every 10 from step 50" in repr(optimizer)
