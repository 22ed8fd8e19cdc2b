"""State that changes while a program runs: rollback, detaching, forward passes outside a gradient."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.loops import train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SmallNet, batches, weights_of

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_state_restored_between_steps_is_continued_exactly(mode: int, tmp_path: Path) -> None:
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.1, damping=0.1, **fixed_intervals(2, 4))
    train_by("functional", net, optimizer, batches(3))
    ms.save_checkpoint(optimizer, str(tmp_path / "state.ckpt"))
    statistics = {name: value.copy() for name, value in _statistics_of_normalisation(net).items()}
    train_by("functional", net, optimizer, batches(6)[3:])
    once = weights_of(net)

    with pytest.warns(UserWarning, match="the checkpoint lacks 2 of 9 Parameters.*: norm.moving_mean,"):
        optimizer.restore(ms.load_checkpoint(str(tmp_path / "state.ckpt")))
    for parameter in net.get_parameters():
        if parameter.name in statistics:
            ms.ops.assign(parameter, ms.Tensor(statistics[parameter.name]))
    train_by("functional", net, optimizer, batches(6)[3:])
    again = weights_of(net)
    for name, value in once.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def _statistics_of_normalisation(net: nn.Cell) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in net.get_parameters() if "moving_" in p.name}


def test_a_detached_network_takes_no_statistics(mode: int) -> None:
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.1, factor_interval=1)
    optimizer.detach()
    assert type(net.conv1) is nn.Conv2d
    momentum = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    train_by("functional", net, momentum, batches(1))
    assert not optimizer.factors("conv1")["A"].any()


def test_detach_does_not_affect_a_later_optimizer(mode: int) -> None:
    net = SmallNet()
    first = ms_kfac.KFAC(net, 0.1)
    with pytest.warns(UserWarning, match="KFAC took over layers conv1, conv2, head"):
        second = ms_kfac.KFAC(net, 0.1)
    first.detach()
    train_by("functional", net, second, batches(1))
    assert second.factors("conv1")["A"].any()


def test_a_first_forward_pass_outside_a_gradient() -> None:
    """In a fresh process: once any gradient has been taken, MindSpore hooks whatever it is asked to."""
    program = """
import mindspore as ms, numpy as np
from mindspore import nn
import ms_kfac
net = nn.SequentialCell(nn.Dense(3, 4), nn.Dense(4, 2))
optimizer = ms_kfac.KFAC(net, 0.1)
print(net(ms.Tensor(np.ones((2, 5, 3), np.float32))).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(2, 5, 2)" in done.stdout


class Rows(nn.Cell):
    """A dense layer with an activation that normalises over axis 1 of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Dense(3, 4, activation=nn.Softmax(axis=1))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.dense(x)


def test_an_activation_sees_rows_as_before(mode: int) -> None:
    net = Rows()
    x = ms.Tensor(np.random.default_rng(0).standard_normal((2, 5, 3), dtype=np.float32))
    plain = net(x).asnumpy()
    ms_kfac.KFAC(net, 0.1)
    np.testing.assert_array_equal(net(x).asnumpy(), plain)
