"""SKFAC's steps against the float64 reference of the whole optimizer, its options, and its state."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.momentum import Momentum
from tests.oracle.network import differentiate
from tests.oracle.skfac import ReferenceSKFAC, statistics_of
from tests.support.loops import Batch, assert_same_state, checkpoint_of, state_of, train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import (
    SMALL_NET_LAYERS,
    Perceptron,
    SmallNet,
    batches,
    small_net_reference,
    weights_of,
)

STEPS = 5
INTERVALS = {"factor_interval": 2, "inverse_interval": 3}


@pytest.mark.parametrize("way", ["functional", "cell"])
def test_training_equals_the_reference(mode: int, way: str) -> None:
    """Statistics at steps 0, 2 and 4, inverses at 0 and 3; `cell` compiles the whole step in graph mode."""
    data = batches(STEPS)
    net = SmallNet()
    start = weights_of(net)
    reference = ReferenceSKFAC(SMALL_NET_LAYERS, Momentum(weight_decay=0.01), damping=0.1, **INTERVALS)
    weights, modules = weights_of(net), small_net_reference()
    for x, y in data:
        _, gradients, _ = differentiate(modules, weights, x, y)
        weights = reference.step(weights, gradients, statistics_of(modules, "sum"), 0.1)
    optimizer = ms_kfac.SKFAC(net, 0.1, damping=0.1, weight_decay=0.01, **fixed_intervals(**INTERVALS))

    train_by(way, net, optimizer, data)

    assert "conv1  convolution  SKFAC Kronecker  A 19 (Woodbury, rank 8), G 4 (Cholesky)" in (
        optimizer.summary()
    )
    for name, found in weights_of(net).items():
        moved = np.abs(weights[name] - start[name]).max()
        assert moved > 1e-4, f"{name} did not move, so the comparison is empty"
        # float32 ε times a condition of about 1e3, behind five steps.
        np.testing.assert_allclose(found, weights[name], rtol=0, atol=2e-3 * moved, err_msg=name)
    for layer in SMALL_NET_LAYERS:
        for letter, exact in zip("AG", reference.present[layer]):
            factor = optimizer.factors(layer)[letter]
            np.testing.assert_allclose(factor, exact, rtol=0, atol=1e-3 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("spatial", "max", "'subsample'"),
        ("samples", 0, "at least 1"),
        ("samples", 2.5, "int"),
        ("damping", -1.0, "positive"),
    ],
)
def test_refused_by_name(option: str, value: object, accepted: str) -> None:
    net = nn.SequentialCell(nn.Dense(2, 2))
    kind = type(net[0])
    with pytest.raises((TypeError, ValueError), match=option) as error:
        ms_kfac.SKFAC(net, 0.1, **{option: value})
    assert repr(value) in str(error.value)
    assert accepted in str(error.value)
    assert type(net[0]) is kind, "a refused optimizer left a tap behind"


def test_shown_to_a_person() -> None:
    optimizer = ms_kfac.SKFAC(nn.SequentialCell(nn.Dense(3, 2)), 0.1, spatial="subsample", samples=5)
    assert "spatial 'subsample' of 5, no moving average" in repr(optimizer)
    assert "A 4, G 2 (chosen at the first step)" in optimizer.summary()


def rows(steps: int, size: int) -> list[Batch]:
    rng = np.random.default_rng(size)
    return [
        (rng.standard_normal((size, 12)).astype(np.float32), rng.integers(0, 5, size).astype(np.int32))
        for _ in range(steps)
    ]


def build() -> tuple[nn.Cell, ms_kfac.SKFAC]:
    net = Perceptron((12, 5))
    return net, ms_kfac.SKFAC(net, 0.1, damping=0.1, **fixed_intervals(**INTERVALS))


def test_state_resumes_in_a_new_optimizer(tmp_path: Path) -> None:
    """Ranks come with the state: rows of batches of 4 are no sums for an optimizer that would keep sums."""
    path = str(tmp_path / "state.ckpt")
    net, optimizer = build()
    train_by("functional", net, optimizer, rows(2, 4))
    ms.save_checkpoint(optimizer, path)
    state = ms.load_checkpoint(path)

    resumed_net, resumed = build()
    ms.load_param_into_net(resumed_net, {p.name: p for p in net.get_parameters()})
    ms.load_param_into_net(resumed, state)
    for one_net, one in ((net, optimizer), (resumed_net, resumed)):
        with pytest.warns(UserWarning, match="rank"):
            train_by("functional", one_net, one, rows(2, 16))
        assert "A 13 (Woodbury, rank 4)" in one.summary()
    for name, weight in weights_of(net).items():
        np.testing.assert_allclose(weights_of(resumed_net)[name], weight, rtol=1e-5, atol=1e-6, err_msg=name)

    other_net, other = build()
    train_by("functional", other_net, other, rows(1, 16))
    before = other.factors("layers.0")["A"]
    with pytest.raises(ValueError, match=r"layers\.0\.weights was written for rank 4.*rank 13"):
        other.restore(state)
    np.testing.assert_array_equal(other.factors("layers.0")["A"], before)
    optimizer.restore(state)


def test_a_policy_that_watches_statistics_leaves_the_ranks_open() -> None:
    """The policy needs shapes when the optimizer is made; ranks are settled by the first batch."""
    net = SmallNet()
    optimizer = ms_kfac.SKFAC(net, 0.1, factor_interval=ms_kfac.StaleStatistics())
    assert "chosen at the first step" in optimizer.summary()
    train_by("cell", net, optimizer, batches(2))
    assert "Woodbury, rank 8" in optimizer.summary()


def test_restore_with_blocks_of_other_kinds(tmp_path: Path) -> None:
    net = SmallNet()
    optimizer = ms_kfac.SKFAC(net, 0.1, normalization="unit_wise")
    train_by("functional", net, optimizer, batches(1))
    ms.save_checkpoint(optimizer, str(tmp_path / "state.ckpt"))
    before = optimizer.factors("norm")["F"]
    train_by("functional", net, optimizer, batches(1, seed=5))
    with pytest.warns(UserWarning, match="the checkpoint lacks 2 of 9 Parameters.*: norm.moving_mean,"):
        optimizer.restore(ms.load_checkpoint(str(tmp_path / "state.ckpt")))
    np.testing.assert_array_equal(optimizer.factors("norm")["F"], before)


@pytest.mark.parametrize("way", ["functional", "cell"])
def test_a_resumed_run_draws_the_same_locations(mode: int, way: str) -> None:
    """The state is in the checkpoint: another process would otherwise repeat the first draws."""
    options = {"spatial": "subsample", "samples": 2, "damping": 0.1, **fixed_intervals(1, 1)}

    def build(seed: int) -> tuple[nn.Cell, ms_kfac.SKFAC]:
        ms.set_seed(seed)
        net = SmallNet()
        return net, ms_kfac.SKFAC(net, 0.1, **options)

    data = batches(4)
    whole, optimizer = build(5)
    train_by(way, whole, optimizer, data[:2])
    stored = checkpoint_of(whole, optimizer)
    counter = stored["skfac.conv1.draws"].asnumpy()[1]
    train_by(way, whole, optimizer, data[2:])
    resumed, other = build(6)
    other.restore(stored)
    train_by(way, resumed, other, data[2:])
    assert (counter, other.blocks[0].draws.asnumpy()[1]) == (2, 4)
    assert_same_state(state_of(resumed, other), state_of(whole, optimizer))
