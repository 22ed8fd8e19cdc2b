"""Amp levels: layers compute in float16, statistics stay those of a float32 run, in float32."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from ms_kfac.capture.tap import Tap
from ms_kfac.ops.statistics.layer_statistics import StatisticsOperator
from ms_kfac.refresh.gate import Gate
from tests.support.bank import randomise, tensor
from tests.support.loops import Batch, as_dataset, cross_entropy
from tests.support.networks import weights_of

FLOAT16_EPSILON = 2.0**-11
LAYERS = ("conv", "dense")
# Sums of squares pass float16's 65504 by far.
LOUD = 300.0


class Net(nn.Cell):
    """A convolution, BatchNorm and a dense layer, in a folder without files named as some of MindSpore's.

    Level O1 writes networks to a file that imports such files by their bare names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.activation = nn.Tanh()
        self.flatten = nn.Flatten()
        self.dense = nn.Dense(3 * 4 * 4, 5)
        randomise(self, np.random.default_rng(3), 0.3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.dense(self.flatten(self.activation(self.norm(self.conv(x)))))


def data(count: int = 1, size: int = 32) -> list[Batch]:
    rng = np.random.default_rng(5)
    return [
        (
            (LOUD * rng.standard_normal((size, 2, 4, 4))).astype(np.float32),
            rng.integers(0, 5, size).astype(np.int32),
        )
        for _ in range(count)
    ]


def train(level: str, model_class: Any = ms_kfac.Model, **options: Any) -> tuple[nn.Cell, Any]:
    """The network and its optimizer after two steps."""
    net = Net()
    optimizer = ms_kfac.KFAC(
        net,
        0.01,
        damping=0.05,
        factor_interval=ms_kfac.FixedInterval(2),
        normalization="unit_wise",
        **options.pop("optimizer", {}),
    )
    model = model_class(net, cross_entropy(), optimizer, amp_level=level, **options)
    model.train(1, as_dataset(data(2)), dataset_sink_mode=False)
    return net, optimizer


@functools.cache
def float32_run(mode: int) -> tuple[nn.Cell, Any]:
    return train("O0")


def assert_close(net: nn.Cell, optimizer: Any, mode: int) -> None:
    """Factors of the first step, and weights after the second.

    On the way to a factor a number is rounded to float16 at the input, weights and output of each of three
    layers, forward and backward: 18 times, each by ε relative to the norm. Products have two factors.
    """
    expected_net, expected = float32_run(mode)
    tolerance = 2 * 18 * FLOAT16_EPSILON
    for layer in (*LAYERS, "norm"):
        for name, factor in expected.factors(layer).items():
            found = optimizer.factors(layer)[name]
            assert found.dtype == np.float32
            error = np.linalg.norm(found - factor) / np.linalg.norm(factor)
            assert error < tolerance, (layer, name, error)
    start = weights_of(Net())
    for name, weight in weights_of(expected_net).items():
        moved = np.linalg.norm(weight - start[name])
        # An inverse of either damped factor, and the gradient: their relative errors add.
        error = np.linalg.norm(weights_of(net)[name] - weight)
        assert error < 3 * tolerance * moved, (name, error / moved)
    assert all(p.dtype != ms.float16 for p in optimizer.get_parameters())


def check(level: str, mode: int) -> None:
    """Trains at a level and compares."""
    expected = float32_run(mode)[1]
    net, optimizer = train(level, loss_scale_manager=None)
    assert_close(net, optimizer, mode)
    for layer in LAYERS:
        different = np.abs(optimizer.factors(layer)["G"] - expected.factors(layer)["G"])
        assert different.max() > 0, "nothing was computed in float16"


@pytest.mark.parametrize("level", ["O2", "O3", "auto"])
def test_factors_are_those_of_a_float32_run(mode: int, level: str) -> None:
    check(level, mode)


def test_level_o1(mode: int, tmp_path: Path) -> None:
    """In a process of its own: it writes files to where it runs, and MindSpore 2.10 does it right once."""
    program = (
        "import tests.conftest, mindspore as ms; from tests.train.test_mixed_precision import check;"
        f"ms.set_context(mode={mode}); check('O1', {mode})"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert (tmp_path / "rewritten_network").is_dir()


def test_mindspores_own_model() -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    manager = ms.FixedLossScaleManager(64.0, drop_overflow_update=False)
    run = train("O3", ms.Model, loss_scale_manager=manager, optimizer={"loss_scale": 64.0})
    assert_close(*run, ms.GRAPH_MODE)
    ms.set_context(mode=ms.PYNATIVE_MODE)


def test_batch_normalisation_in_float16_too() -> None:
    """`keep_batchnorm_fp32=False` at level O2."""
    ms.set_context(mode=ms.GRAPH_MODE)
    net, optimizer = train("O2", loss_scale_manager=None, keep_batchnorm_fp32=False)
    assert_close(net, optimizer, ms.GRAPH_MODE)
    ms.set_context(mode=ms.PYNATIVE_MODE)


def test_level_o1_gives_the_taps_back_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that was given keeps its taps when the level can't rewrite it."""
    monkeypatch.chdir(tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("rewriting failed")

    net = Net()
    optimizer = ms_kfac.KFAC(net, 0.01, factor_interval=1)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="rewriting failed"):
        patch.setattr("mindspore.train.amp.auto_mixed_precision", refuse)
        ms_kfac.Model(net, cross_entropy(), optimizer, amp_level="O1")
    ms_kfac.Model(net, cross_entropy(), optimizer).train(1, as_dataset(data()), dataset_sink_mode=False)
    assert optimizer.factors("conv")["A"].any()


class Watching(StatisticsOperator):
    """Writes down what types it gets, and a sum of dout."""

    def construct(
        self,
        x: ms.Tensor,
        dout: ms.Tensor,
        gate: ms.Parameter,
        types: ms.Parameter,
        total: ms.Parameter,
        s3: ms.Parameter,
    ) -> bool:
        if x.dtype == ms.float32 and dout.dtype == ms.float32:
            ops.assign_add(types, ms.Tensor(1.0))
        ops.assign_add(total, ops.reduce_sum(dout))
        return True


def test_taps_hand_over_float32(mode: int) -> None:
    """And pass dout on in its type."""
    state = tuple(ms.Parameter(ms.Tensor(0.0), name=f"s{i}", requires_grad=False) for i in range(3))
    tap = Tap(Watching(), state, Gate("gate"))

    class Tapped(nn.Cell):
        def construct(self, x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
            # Through an operator, or PyNative mode has nothing to hook.
            return tap(x, y * ms.Tensor(1.0, ms.float16))

    half = ops.cast(tensor(np.ones((2, 3))), ms.float16)
    seed = ops.cast(tensor(np.full((2, 3), 4.0)), ms.float16)
    gradient = ops.GradOperation(get_all=True, sens_param=True)(Tapped())(half, half, seed)[1]
    assert gradient.dtype == ms.float16
    np.testing.assert_array_equal(gradient.asnumpy(), np.full((2, 3), 4.0))
    types, total = (float(parameter.asnumpy()) for parameter in state[:2])
    assert types == 1.0
    assert total == 24.0
