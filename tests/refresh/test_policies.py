"""When refreshes are due, and how the gate is read in PyNative mode."""

from __future__ import annotations

import mindspore as ms
import pytest

import ms_kfac
from ms_kfac.refresh import Gate


def test_fixed_interval_is_due_at_its_multiples(mode: int) -> None:
    policy = ms_kfac.FixedInterval(3)
    due = [bool(policy(ms.Tensor([step], ms.int32)).asnumpy()[0]) for step in range(7)]
    assert due == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("interval", [0, -1, 2.0, True, "10"])
def test_fixed_interval_refuses(interval: object) -> None:
    with pytest.raises((TypeError, ValueError), match="interval must be an int of at least 1"):
        ms_kfac.FixedInterval(interval)  # type: ignore[arg-type]


def test_gate_is_read_once_a_pass() -> None:
    gate = Gate("test.gate")
    first, second = object(), object()
    assert gate.is_open(first)
    gate.parameter.set_data(ms.Tensor(0, ms.int32))
    assert gate.is_open(second), "within one pass all taps must see the same gate"
    assert not gate.is_open(first), "the first tap that asks again has started a new pass"
    gate.parameter.set_data(ms.Tensor(1, ms.int32))
    gate.expire()
    assert gate.is_open(second)
