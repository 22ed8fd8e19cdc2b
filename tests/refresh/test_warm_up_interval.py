"""More refreshes at first, against a list of the steps; and that ints mean this policy."""

from __future__ import annotations

import mindspore as ms
import pytest

import ms_kfac
from tests.support.loops import train_by
from tests.support.networks import SmallNet, batches

FIRST = list(range(11))
FIFTHS = [15, 20, 25, 30, 35, 40, 45, 50]
DUE = {
    1: list(range(120)),
    3: [*FIRST, *range(12, 120, 3)],
    # Never rarer than the interval asks for: 49 and 56 are due, and 50 ends the warm-up.
    7: sorted({*FIRST, *FIFTHS, *range(0, 120, 7)}),
    10: [*FIRST, *FIFTHS, *range(60, 120, 10)],
    100: [*FIRST, *FIFTHS, 100],
}


@pytest.mark.parametrize("interval", DUE)
def test_due_steps(mode: int, interval: int) -> None:
    policy = ms_kfac.WarmUpInterval(interval)
    found = [step for step in range(120) if bool(policy(ms.Tensor([step], ms.int32)).asnumpy()[0])]
    assert found == DUE[interval]
    added = sum(step % interval != 0 for step in found)
    assert policy.warm_up_refreshes == added


@pytest.mark.parametrize("interval", [0, -1, 2.0, True, "10"])
def test_refused(interval: object) -> None:
    with pytest.raises((TypeError, ValueError), match="interval must be an int of at least 1"):
        ms_kfac.WarmUpInterval(interval)  # type: ignore[arg-type]


def test_repr_of_the_warm_up_interval() -> None:
    assert repr(ms_kfac.WarmUpInterval(1)) == "every step"
    assert repr(ms_kfac.WarmUpInterval(4)) == "every step up to step 10, then every 4 steps"
    assert repr(ms_kfac.WarmUpInterval(100)) == (
        "every step up to step 10, every 5 up to step 50, then every 100 steps"
    )


@pytest.mark.parametrize("options", [{}, {"factor_interval": 10, "inverse_interval": 100}])
def test_ints_and_defaults_warm_up(options: dict[str, int]) -> None:
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.01, **options)
    assert "every 5 up to step 50, then every 100 steps" in optimizer.summary()
    train_by("functional", net, optimizer, batches(13))
    # Counted at the end of a step: statistics of the steps 0 to 12, none at 11 and 12.
    assert optimizer.refreshes() == {"statistics": 11, "inverses": 11, "refused": 0}


@pytest.mark.parametrize("method", ["TKFAC", "SMKFAC", "SKFAC", "EKFAC", "THOR"])
def test_every_method_warms_up(method: str) -> None:
    optimizer = getattr(ms_kfac, method)(SmallNet(), 0.01)
    expected = ms_kfac.WarmUpInterval(10), ms_kfac.WarmUpInterval(100)
    assert repr(optimizer.factor_policy) == repr(expected[0])
    assert repr(optimizer.inverse_policy).startswith(repr(expected[1]))


def test_ints_of_trace_changes_warm_up() -> None:
    policy = ms_kfac.TraceChange(interval=100)
    assert repr(policy).startswith(repr(ms_kfac.WarmUpInterval(100)))


def test_traces_are_looked_at_in_the_warm_up() -> None:
    """THOR at a threshold that any change passes: each of the layers at each of the looks."""
    net = SmallNet()
    optimizer = ms_kfac.THOR(net, 0.01, omega1=0.0)
    train_by("functional", net, optimizer, batches(13))
    assert optimizer.refreshes()["inverses"] == 11 * len(optimizer.blocks)
