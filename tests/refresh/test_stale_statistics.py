"""Intervals that follow a statistic's changes, against the rule applied to one statistic at a time."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

import ms_kfac
from ms_kfac.refresh import ScheduleOptions
from tests.oracle.policies import steps_taken
from tests.support.bank import tensor
from tests.support.blocks import ScriptedBlock
from tests.support.loops import cross_entropy, functional_step
from tests.support.networks import SmallNet, batches

STEPS = 40
SHAPES = ((3, 3), (2, 2))


def script(kind: str, shape: tuple[int, ...], step: int) -> np.ndarray:
    """What a statistic measures at a step."""
    base = 1.0 + np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    if kind == "constant":
        return base
    if kind == "growing":
        return base * 1.5**step
    if kind == "jump":
        return base * (1.0 if step < 15 else 5.0)
    # Two refreshes apart it differs by more than the similarity, one refresh apart by less.
    return base * (1.0 + 0.08 * step)


@pytest.mark.parametrize("stopped", [None, (0.0, 1.0)])
def test_each_statistic_has_its_interval(mode: int, stopped: tuple[float, ...] | None) -> None:
    kinds = (("constant", "growing"), ("jump", "drift"))
    blocks = [ScriptedBlock(f"block{i}", SHAPES) for i in range(2)]
    flags = None
    if stopped is not None:
        flags = ms.Parameter(ms.Tensor(stopped, ms.float32), name="stopped")
    schedule = ms_kfac.StaleStatistics(0.1).for_statistics(blocks, ScheduleOptions("test", stopped=flags))
    taken: list[list[list[int]]] = [[[], []], [[], []]]
    for step in range(STEPS):
        for i, block in enumerate(blocks):
            code = int(schedule.gates[i].pending.asnumpy())
            values = []
            for group in range(2):
                if code & (1 << group):
                    taken[i][group].append(step)
                    values.append(script(kinds[i][group], SHAPES[group], step))
                else:
                    values.append(block.measured[group].asnumpy())
            block.measure(*values)
        schedule(ms.Tensor([step + 1], ms.int32))

    for i in range(2):
        for group in range(2):
            # One step more: the schedule has prepared step STEPS already.
            expected = steps_taken(
                0.1, lambda step, i=i, group=group: script(kinds[i][group], SHAPES[group], step), STEPS + 1
            )
            if stopped is not None and stopped[i]:
                expected = [0]
            assert taken[i][group] == [step for step in expected if step < STEPS], kinds[i][group]


def test_scripts_cover_every_branch() -> None:
    """The oracle itself: constant grows like Fibonacci, growing stays at 1, drift stops growing."""
    shape = (2, 2)
    assert steps_taken(0.1, lambda step: script("constant", shape, step), 34) == [0, 1, 2, 4, 7, 12, 20, 33]
    assert steps_taken(0.1, lambda step: script("growing", shape, step), 6) == [0, 1, 2, 3, 4, 5]
    jumps = steps_taken(0.1, lambda step: script("jump", shape, step), 40)
    assert min(np.diff(jumps)[4:]) < max(np.diff(jumps)[:6])


def test_statistics_do_not_change_between_updates(mode: int) -> None:
    """Everything similar: a whole optimizer takes statistics at the Fibonacci steps, those of all layers."""
    net = SmallNet()
    net.set_train(True)
    optimizer = ms_kfac.SPNGD(net, 0.01, similarity=1e6, damping=0.1)
    step = functional_step(net, optimizer, cross_entropy())
    changed = []
    before: dict[str, np.ndarray] = {}
    for number, (x, y) in enumerate(batches(9)):
        step(tensor(x), tensor(y))
        now = {
            f"{layer}.{key}": value
            for layer in ("conv1", "conv2", "head")
            for key, value in optimizer.factors(layer).items()
        }
        changed.append({key for key in before if not np.array_equal(now[key], before[key])})
        before = now
        assert len(changed[-1]) == (6 if number in (1, 2, 4, 7) else 0), number
    assert optimizer.refreshes() == {"statistics": 5 * 4, "inverses": 5 * 4, "refused": 0}


def test_statistics_of_many_layers_do_not_nest_in_the_compiled_step() -> None:
    # MindSpore's limit is 1,000 calls, and ResNet-50 has 214 statistics: what these 24 take must not grow.
    net = ms.nn.SequentialCell([ms.nn.Dense(2, 2) for _ in range(12)])
    optimizer = ms_kfac.SPNGD(net, 0.01, verify="off")
    ms.set_recursion_limit(150)
    try:
        optimizer(tuple(tensor(np.ones(p.shape)) for p in net.trainable_params()))
    finally:
        ms.set_recursion_limit(1000)


@pytest.mark.parametrize("similarity", [0.0, -1.0, float("inf"), True, "0.1"])
def test_refused(similarity: object) -> None:
    with pytest.raises((TypeError, ValueError), match="similarity"):
        ms_kfac.StaleStatistics(similarity)


def test_refused_for_inverses() -> None:
    with pytest.raises(ValueError, match="factor_interval"):
        ms_kfac.KFAC(SmallNet(), 0.1, inverse_interval=ms_kfac.StaleStatistics())
    with pytest.raises(ValueError, match="inverse_interval"):
        ms_kfac.KFAC(SmallNet(), 0.1, factor_interval=ms_kfac.OnNewStatistics())
