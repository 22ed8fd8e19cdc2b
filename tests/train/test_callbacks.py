"""`Model.fit` with validation and callbacks trains as a loop does; MindSpore has no sink mode on CPUs."""

from __future__ import annotations

import io
import re

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train import LearningRateScheduler, ReduceLROnPlateau

import ms_kfac
from ms_kfac.train import ProgressBar
from tests.support.loops import as_dataset, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, weights_of

EPOCHS, STEPS = 2, 4


def rate_after(rate: float, step: int) -> float:
    return 0.1 if step < 3 else 0.02


def test_fit(mode: int, rng: np.random.Generator) -> None:
    data = [
        (rng.standard_normal((6, 4)).astype(np.float32), rng.integers(0, 3, 6).astype(np.int32))
        for _ in range(STEPS)
    ]
    net = Perceptron((4, 5, 3))
    rates = [0.1] + [rate_after(0.1, step) for step in range(1, EPOCHS * STEPS)]
    optimizer = ms_kfac.KFAC(net, rates, **fixed_intervals(1, 2))
    run(functional_step(net, optimizer, nn.CrossEntropyLoss()), data * EPOCHS)
    expected = weights_of(net)

    net = Perceptron((4, 5, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, **fixed_intervals(1, 2))
    model = ms_kfac.Model(net, nn.CrossEntropyLoss(), optimizer, metrics={"loss"})
    lines, monitor = io.StringIO(), ms_kfac.CurvatureMonitor(interval=3, write=None)
    # The second learns nothing from a loss that falls.
    callbacks = [
        LearningRateScheduler(rate_after),
        ReduceLROnPlateau("eval_loss", patience=1),
        ProgressBar(stream=io.StringIO(), lines=lines),
        monitor,
    ]
    model.fit(
        EPOCHS,
        as_dataset(data),
        as_dataset(data[:2]),
        callbacks=callbacks,
        dataset_sink_mode=False,
        valid_dataset_sink_mode=False,
    )
    for name, weight in weights_of(net).items():
        # Equal operators, which one graph fuses in another way than another.
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=1e-6, err_msg=name)
    assert optimizer.refreshes() == {"statistics": 8, "inverses": 4, "refused": 0}
    assert [record["step"] for record in monitor.records] == [3, 6]
    np.testing.assert_allclose(optimizer.learning_rate.asnumpy(), 0.02)
    assert len(re.findall(r"0:00 left|0:01 left", lines.getvalue())) >= 1


def test_a_plateau_lowers_the_rate_of_the_compiled_step(mode: int, rng: np.random.Generator) -> None:
    data = [(rng.standard_normal((6, 4)).astype(np.float32), np.zeros(6, np.int32))]
    net = Perceptron((4, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, **fixed_intervals(1, 2))
    model = ms_kfac.Model(net, nn.CrossEntropyLoss(), optimizer, metrics={"loss"})
    # No loss falls by so much: after the second epoch, the rate is below the rounding of the weights.
    stop = ReduceLROnPlateau("eval_loss", factor=1e-15, patience=1, min_delta=100.0)
    model.fit(2, as_dataset(data), as_dataset(data), callbacks=[stop], dataset_sink_mode=False)
    assert 0.0 < optimizer.learning_rate.asnumpy() < 1e-15
    before = weights_of(net)
    model.train(1, as_dataset(data), dataset_sink_mode=False)
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, before[name], err_msg=name)
    ms.ops.assign(optimizer.learning_rate, ms.Tensor(0.1))
    model.train(1, as_dataset(data), dataset_sink_mode=False)
    assert all(np.abs(weight - before[name]).max() > 0 for name, weight in weights_of(net).items())
