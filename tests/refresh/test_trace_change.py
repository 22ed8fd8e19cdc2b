"""Refresh, keep or stop by the change of a trace, against the rule applied to one layer at a time."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

import ms_kfac
from ms_kfac.ops.step.number_schedule import positive_schedule
from tests.oracle.policies import trace_decisions
from tests.support.blocks import ScriptedBlock
from tests.support.networks import SmallNet

DAMPING, SIZES = 0.5, (4, 10)
TRACES = ([1.0, 1.001, 1.5, 1.503, 9.0, 9.0], [3.0, 3.05, 3.1, 3.15, 3.2, 20.0])


@pytest.mark.parametrize("omegas", [(0.01, 0.0), (0.01, 0.001), (0.0, 0.0)])
def test_decisions(mode: int, omegas: tuple[float, float]) -> None:
    policy = ms_kfac.TraceChange(*omegas)
    blocks = [ScriptedBlock(f"block{i}", [()], size) for i, size in enumerate(SIZES)]
    stopped = policy.stopped_layers(2, "test")
    assert (stopped is None) == (omegas[1] == 0.0)
    schedule = policy.for_inverses(blocks, positive_schedule("damping", DAMPING), (), stopped, "test")
    counts = []
    for look in range(len(TRACES[0])):
        for i, block in enumerate(blocks):
            block.measure(TRACES[i][look])
        schedule(ms.Tensor([look], ms.int32))
        counts.append([int(block.refreshes.asnumpy()) for block in blocks])
    for i in range(2):
        shifted = [trace + DAMPING * SIZES[i] for trace in TRACES[i]]
        decisions = trace_decisions(shifted, *omegas)
        found = np.diff([0] + [count[i] for count in counts])
        assert [bool(f) for f in found] == [d == "refresh" for d in decisions]
        if stopped is not None:
            assert bool(stopped.asnumpy()[i]) == ("stop" in decisions)
    assert int(schedule.refreshes.asnumpy()) == sum(counts[-1])


def test_scripts_cover_every_decision() -> None:
    shifted = [trace + DAMPING * SIZES[0] for trace in TRACES[0]]
    assert set(trace_decisions(shifted, 0.01, 0.0)) == {"refresh", "keep"}
    assert "stop" in trace_decisions(shifted, 0.01, 0.001)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"omega1": -0.1}, "omega1"),
        ({"omega1": 0.01, "omega2": 0.02}, "omega2"),
        ({"omega1": float("inf")}, "omega1"),
        ({"omega1": "0.1"}, "omega1"),
        ({"interval": 0}, "interval"),
        ({"interval": 1.5}, "interval"),
    ],
)
def test_refused(arguments: dict[str, object], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        ms_kfac.TraceChange(**arguments)


def test_refused_for_statistics() -> None:
    with pytest.raises(ValueError, match="inverse_interval"):
        ms_kfac.KFAC(SmallNet(), 0.1, factor_interval=ms_kfac.TraceChange())


def test_change_of_damping_alone_neither_refreshes_nor_stops(mode: int) -> None:
    """New λ at every look, the same statistics: neither a refresh nor a stop."""
    policy = ms_kfac.TraceChange(0.01, 0.001)
    block = ScriptedBlock("block", [()], 100)
    block.measure(1.0)
    stopped = policy.stopped_layers(1, "test")
    damping = positive_schedule("damping", [0.01 * 0.999**look for look in range(5)])
    schedule = policy.for_inverses([block], damping, (), stopped, "test")
    for look in range(5):
        schedule(ms.Tensor([look], ms.int32))
    assert stopped is not None
    assert stopped.asnumpy().tolist() == [0.0]
    assert int(block.refreshes.asnumpy()) == 1


@pytest.mark.parametrize("policy", [ms_kfac.OnNewStatistics(), ms_kfac.StaleStatistics()])
def test_policies_that_do_not_decide_by_the_step_are_refused(policy: ms_kfac.RefreshPolicy) -> None:
    with pytest.raises(ValueError, match="depends only on the step"):
        ms_kfac.THOR(SmallNet(), 0.1, inverse_interval=policy)
