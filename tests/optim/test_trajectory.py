"""Steps of a small net against the float64 reference of the whole optimizer, by every way to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.kfac import ReferenceKFAC
from tests.oracle.momentum import Momentum
from tests.oracle.network import differentiate
from tests.support.loops import Batch, train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, small_net_reference, weights_of

STEPS = 6
INTERVALS = {"factor_interval": 2, "inverse_interval": 3}


def reference_weights(
    net: nn.Cell, reference: ReferenceKFAC, data: Sequence[Batch], rates: Sequence[float]
) -> dict[str, np.ndarray]:
    """The weights after one reference step a batch, from those of `net` now."""
    weights = weights_of(net)
    modules = small_net_reference()
    for (x, y), lr in zip(data, rates):
        _, gradients, statistics = differentiate(modules, weights, x, y)
        weights = reference.step(weights, gradients, statistics, lr)
    return weights


def assert_weights(net: nn.Cell, expected: dict[str, np.ndarray], start: dict[str, np.ndarray]) -> None:
    """Compares to how far a weight moved: float32 ε (1e-7, sums 1e-6) times a condition of about 1e3."""
    for name, weight in weights_of(net).items():
        moved = np.abs(expected[name] - start[name]).max()
        assert moved > 1e-4, f"{name} did not move, so the comparison is empty"
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=2e-3 * moved, err_msg=name)


@pytest.mark.parametrize("way", ["functional", "jit", "cell", "model"])
def test_every_way_to_train_equals_the_reference(mode: int, way: str) -> None:
    data = batches(STEPS)
    net = SmallNet()
    start = weights_of(net)
    reference = ReferenceKFAC(SMALL_NET_LAYERS, Momentum(0.9), damping=0.01, **INTERVALS)
    expected = reference_weights(net, reference, data, [0.1] * STEPS)
    optimizer = ms_kfac.KFAC(net, 0.1, damping=0.01, **fixed_intervals(**INTERVALS))

    train_by(way, net, optimizer, data)

    assert_weights(net, expected, start)
    for layer in SMALL_NET_LAYERS:
        found = optimizer.factors(layer)
        A, G = reference.averages[layer]
        np.testing.assert_allclose(found["A"], A.value, rtol=0, atol=1e-3 * np.abs(A.value).max())
        np.testing.assert_allclose(found["G"], G.value, rtol=0, atol=1e-3 * np.abs(G.value).max())


@dataclass(frozen=True)
class Options:
    """Options that the optimizer and the reference both take."""

    rule: dict[str, object] = field(default_factory=dict)
    kl_clip: float | list[float] | None = 1e-3
    damping: float | list[float] = 0.01
    rates: tuple[float, ...] = (0.1,) * STEPS


OPTIONS = {
    "nesterov": Options({"momentum": 0.8, "nesterov": True}),
    "weight decay": Options({"weight_decay": 0.1}),
    "decoupled weight decay": Options({"weight_decay": 0.1, "decoupled": True}),
    "nesterov and decay": Options({"weight_decay": 0.1, "nesterov": True}, kl_clip=1e-2),
    "no trust region, no momentum": Options({"momentum": 0.0}, kl_clip=None, rates=(0.01,) * STEPS),
    "schedules": Options(
        damping=[0.1, 0.05, 0.04, 0.02, 0.02, 0.02],
        kl_clip=[1e-3, 1e-5, 1e-4, 5e-5, 2e-5, 1e-5],
        rates=tuple(0.1 / (1 + t) for t in range(STEPS)),
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_the_reference(mode: int, name: str) -> None:
    options = OPTIONS[name]
    data = batches(STEPS)
    net = SmallNet()
    start = weights_of(net)
    damping, kl_clip = options.damping, options.kl_clip
    reference = ReferenceKFAC(
        SMALL_NET_LAYERS,
        Momentum(**options.rule),
        damping=damping.__getitem__ if isinstance(damping, list) else damping,
        kl_clip=kl_clip.__getitem__ if isinstance(kl_clip, list) else kl_clip,
        **INTERVALS,
    )
    expected = reference_weights(net, reference, data, options.rates)
    rule = dict(options.rule)
    constant = len(set(options.rates)) == 1
    optimizer = ms_kfac.KFAC(
        net,
        options.rates[0] if constant else list(options.rates),
        damping=damping,
        kl_clip=kl_clip,
        decoupled_weight_decay=rule.pop("decoupled", False),
        **rule,
        **fixed_intervals(**INTERVALS),
    )

    train_by("cell", net, optimizer, data)

    assert_weights(net, expected, start)


class Halving(nn.learning_rate_schedule.LearningRateSchedule):
    """start / 2^t."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start

    def construct(self, global_step: ms.Tensor) -> ms.Tensor:
        return self.start * ms.ops.pow(ms.Tensor(0.5, ms.float32), ms.ops.cast(global_step, ms.float32))


def test_schedules_as_cells(mode: int) -> None:
    """LearningRateSchedules for the learning rate, the damping and the clip, read at the step's number."""
    data = batches(3)
    net = SmallNet()
    start = weights_of(net)
    intervals = {"factor_interval": 1, "inverse_interval": 1}
    reference = ReferenceKFAC(
        SMALL_NET_LAYERS,
        Momentum(),
        damping=lambda t: 0.1 * 0.5**t,
        kl_clip=lambda t: 1e-4 * 0.5**t,
        **intervals,
    )
    expected = reference_weights(net, reference, data, [0.2, 0.1, 0.05])
    optimizer = ms_kfac.KFAC(net, Halving(0.2), damping=Halving(0.1), kl_clip=Halving(1e-4), **intervals)

    train_by("functional", net, optimizer, data)

    assert_weights(net, expected, start)


def test_parameter_groups(mode: int) -> None:
    """Groups as `nn.Momentum` takes them; their learning rates count in the trust region as well."""
    data = batches(4)
    net = SmallNet()
    start = weights_of(net)
    head = [p for p in net.trainable_params() if p.name.startswith("head")]
    rest = [p for p in net.trainable_params() if not p.name.startswith("head")]
    rates = {p.name: 0.05 if p.name.startswith("head") else 0.1 for p in net.trainable_params()}
    intervals = {"factor_interval": 1, "inverse_interval": 2}
    reference = ReferenceKFAC(SMALL_NET_LAYERS, Momentum(), damping=0.01, **intervals)
    weights, modules = weights_of(net), small_net_reference()
    for x, y in data:
        _, gradients, statistics = differentiate(modules, weights, x, y)
        weights = reference.step(weights, gradients, statistics, rates)
    optimizer = ms_kfac.KFAC(
        net,
        0.1,
        params=[{"params": head, "lr": 0.05}, {"params": rest}, {"order_params": net.trainable_params()}],
        damping=0.01,
        **fixed_intervals(**intervals),
    )

    train_by("functional", net, optimizer, data)

    assert_weights(net, weights, start)
