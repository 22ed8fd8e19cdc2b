"""EKFAC as an optimizer: the scale of its steps, its state, what it asks of the statistics."""

from __future__ import annotations

import functools
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.curvature import DiagonalBlock, KroneckerBlock
from tests.support.layer_bank import CASES, build, gradient_function
from tests.support.loops import train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, weights_of

OPTIONS = {"damping": 0.05, **fixed_intervals(2, 3)}
STEPS = 5


def test_state_has_distinct_names() -> None:
    optimizer = ms_kfac.EKFAC(SmallNet(), 0.1)
    names = [p.name for p in optimizer.get_parameters()]
    assert len(names) == len(set(names))
    for layer in SMALL_NET_LAYERS:
        for part in ("Q_A", "Q_G", "s_sum", "weights", "S_A", "damping"):
            assert f"ekfac.{layer}.{part}" in names


def trained(reduction: str = "mean", scale: float = 1.0, micro_batches: int = 1) -> dict[str, np.ndarray]:
    """The weights after five steps, with a new basis after the fourth.

    Factors of full rank: along eigenvectors of a repeated eigenvalue, as in the null space of a factor of few
    samples, the basis is not determined, and rounding alone gives another one.
    """
    rng = np.random.default_rng(3)
    net = build(CASES, rng)
    optimizer = ms_kfac.EKFAC(
        net, 0.1, reduction=reduction, loss_scale=scale, accumulation_steps=micro_batches, **OPTIONS
    )
    factor = scale / micro_batches
    gradient = gradient_function(net, optimizer.parameters, factor, reduction == "mean")
    for _ in range(STEPS):
        batch = [case.batch(16, rng) for case in CASES]
        halves = [[np.split(array, micro_batches) for array in pair] for pair in batch]
        parts = [gradient([(x[i], g[i]) for x, g in halves]) for i in range(micro_batches)]
        optimizer(tuple(sum(gradients[1:], gradients[0]) for gradients in zip(*parts)))
    return weights_of(net)


@functools.cache
def baseline(mode: int) -> dict[str, np.ndarray]:
    return trained()


@pytest.mark.parametrize(
    "options",
    [{"reduction": "sum", "scale": 1024.0}, {"micro_batches": 2, "scale": 8.0}],
    ids=["scaled sum", "micro-batches"],
)
def test_same_steps(mode: int, options: dict[str, object]) -> None:
    expected = baseline(mode)
    start = weights_of(build(CASES, np.random.default_rng(3)))
    for name, weight in trained(**options).items():
        moved = np.abs(expected[name] - start[name]).max()
        assert moved > 1e-4, name
        # Eigenvectors move by float32 rounding, 1e-6 of a factor, over the gap of their eigenvalues.
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=1e-3 * moved, err_msg=name)


def test_gates(mode: int) -> None:
    """Open for everything at even steps, for second moments alone after a basis at an odd one."""
    net = SmallNet()
    optimizer = ms_kfac.EKFAC(net, 0.1, damping=0.1, **fixed_intervals(2, 4))
    gates, counts = [], []
    for batch in batches(6):
        train_by("functional", net, optimizer, [batch])
        gates.append(int(optimizer.statistics_schedule.pending[0].asnumpy()))
        counts.append(float(optimizer.blocks[0].weights.asnumpy()[2]))
    # Bases at steps 0 and 4; steps 2 and 4 take everything.
    assert gates == [4, 3, 0, 3, 4, 3]
    # Each of the two bases was computed once.
    assert int(optimizer.inverse_schedule.refreshes.asnumpy()) == 2
    # Second moments: none in the new basis, then those of the step after.
    assert counts[0] == 0
    assert counts[1] > 0
    assert counts[4] == 0
    assert counts[5] > 0


class EveryBlock(nn.Cell):
    """Layers whose blocks have no eigenbasis, before one that has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm([4])
        self.kronecker = nn.Dense(4, 4)
        self.diagonal = nn.Dense(4, 4)
        self.head = nn.Dense(4, 3)

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        return self.head(self.diagonal(self.kronecker(self.norm(self.table(ids)))))


def test_blocks_without_an_eigenbasis_may_miss_a_batch_of_second_moments(mode: int) -> None:
    net = EveryBlock()
    blocks = {"kronecker": KroneckerBlock, "diagonal": DiagonalBlock}
    options = {"normalization": "unit_wise", "blocks": blocks, **fixed_intervals(2, 4)}
    optimizer = ms_kfac.EKFAC(net, 0.1, damping=0.1, **options)
    rng = np.random.default_rng(4)
    gates = []
    for _ in range(6):
        ids = ms.Tensor(rng.integers(0, 5, 8), ms.int32)
        train_by("functional", net, optimizer, [(ids, ms.Tensor(rng.integers(0, 3, 8), ms.int32))])
        gates.append(int(optimizer.statistics_schedule.pending[0].asnumpy()))
    assert gates == [4, 3, 0, 3, 4, 3]
    assert [check.state for check in optimizer.verification.checked] == 5 * ["verified"]


def test_resumed_run_equals_the_whole_run(mode: int, tmp_path: Path) -> None:
    """Stopped right after a new basis: the gate for the step after is part of the state."""
    data = batches(6)
    net = SmallNet()
    optimizer = ms_kfac.EKFAC(net, 0.1, **OPTIONS)
    train_by("functional", net, optimizer, data[:4])
    files = str(tmp_path / "net.ckpt"), str(tmp_path / "state.ckpt")
    ms.save_checkpoint(net, files[0])
    ms.save_checkpoint(optimizer, files[1])
    train_by("functional", net, optimizer, data[4:])

    resumed = SmallNet(5)
    other = ms_kfac.EKFAC(resumed, 0.1, **OPTIONS)
    ms.load_param_into_net(resumed, ms.load_checkpoint(files[0]))
    missing, _ = ms.load_param_into_net(other, ms.load_checkpoint(files[1]))
    assert not missing
    train_by("functional", resumed, other, data[4:])
    for name, weight in weights_of(net).items():
        np.testing.assert_allclose(weights_of(resumed)[name], weight, rtol=1e-5, atol=1e-6, err_msg=name)
