"""Polyak's averages: their values, and evaluation with them in the weights' place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.kfac import MovingAverage
from tests.support.bank import tensor
from tests.support.loops import Step, checkpoint_of, cross_entropy, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, batches, weights_of

STEPS = 5


def net_of(seed: int = 0) -> Perceptron:
    return Perceptron((60, 6, 5), seed=seed)


def data(first: int, last: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(x.reshape(len(x), -1), y) for x, y in batches(last)[first:]]


@dataclass
class Run:
    """A net after a few steps, and its averages in float64."""

    net: Perceptron
    optimizer: nn.Optimizer
    step: Step
    averages: dict[str, np.ndarray]


def trained(averaging: float = 0.6) -> Run:
    net = net_of()
    optimizer = ms_kfac.KFAC(net, 0.2, averaging=averaging, damping=0.1, **fixed_intervals(2, 2))
    averages = {name: MovingAverage(averaging) for name in weights_of(net)}
    step = functional_step(net, optimizer, cross_entropy())
    for batch in data(0, STEPS):
        run(step, [batch])
        for name, weight in weights_of(net).items():
            averages[name].add(weight)
    return Run(net, optimizer, step, {name: average.value for name, average in averages.items()})


def test_averages_in_place_and_back(mode: int) -> None:
    """Inside the block the net computes with the averages, outside with the weights, bit for bit."""
    done = trained()
    net = done.net
    x = tensor(data(STEPS, STEPS + 1)[0][0])
    before, output = weights_of(net, np.float32), net(x).asnumpy()
    with done.optimizer.averaged_weights():
        inside, averaged_output = weights_of(net), net(x).asnumpy()
    after, output_again = weights_of(net, np.float32), net(x).asnumpy()
    hidden = x.asnumpy().astype(np.float64)
    for name, average in done.averages.items():
        assert np.abs(average - before[name]).max() > 1e-3 * np.abs(average).max(), name
        # Five float32 averages.
        tolerance = 1e-6 * np.abs(average).max()
        np.testing.assert_allclose(inside[name], average, rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    np.testing.assert_array_equal(output_again, output)
    averages = done.averages
    hidden = np.tanh(hidden @ averages["layers.0.weight"].T + averages["layers.0.bias"])
    expected = hidden @ averages["layers.1.weight"].T + averages["layers.1.bias"]
    # MindSpore's float32 tanh is good to about 1e-5.
    np.testing.assert_allclose(averaged_output, expected, rtol=0, atol=2e-4)
    assert np.abs(averaged_output - output).max() > 1e-2


def test_weights_are_restored_after_an_exception(mode: int) -> None:
    done, undisturbed = trained(), trained()
    before = weights_of(done.net, np.float32)
    with pytest.raises(KeyError, match="inside"), done.optimizer.averaged_weights():
        raise KeyError("inside")
    for name, weight in weights_of(done.net, np.float32).items():
        np.testing.assert_array_equal(weight, before[name])

    for one in (done, undisturbed):
        run(one.step, data(STEPS, STEPS + 2))
    for name, weight in weights_of(undisturbed.net).items():
        np.testing.assert_array_equal(weights_of(done.net)[name], weight)
        assert np.any(weight != before[name])


def test_without_averages_it_is_refused() -> None:
    optimizer = ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1)
    with pytest.raises(ValueError, match="averaging="):
        optimizer.averaged_weights()


@pytest.mark.parametrize("value", [1.0, -0.1, "0.9", float("nan")])
def test_bad_decays_are_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=r"averaging must be a number in \[0, 1\)"):
        ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1, averaging=value)


def test_a_decay_of_zero_is_the_weights_themselves() -> None:
    done = trained(0.0)
    before = weights_of(done.net)
    with done.optimizer.averaged_weights():
        for name, weight in weights_of(done.net).items():
            np.testing.assert_array_equal(weight, before[name])


def test_checkpoints_carry_the_averages(tmp_path: Path) -> None:
    done = trained()
    ms.save_checkpoint(done.optimizer, str(tmp_path / "state.ckpt"))
    other = net_of(seed=3)
    restored = ms_kfac.KFAC(other, 0.2, averaging=0.6)
    ms.load_param_into_net(restored, ms.load_checkpoint(str(tmp_path / "state.ckpt")))
    with restored.averaged_weights():
        for name, weight in weights_of(other).items():
            tolerance = 1e-6 * np.abs(weight).max()
            np.testing.assert_allclose(weight, done.averages[name], rtol=0, atol=tolerance)
    for name, weight in weights_of(other).items():
        np.testing.assert_array_equal(weight, weights_of(done.net)[name])


def test_before_the_first_step_the_weights_are_their_own_average() -> None:
    """Weights may be loaded between making the optimizer and training."""
    net = net_of(seed=3)
    optimizer = ms_kfac.KFAC(net, 0.2, averaging=0.9)
    loaded = weights_of(net_of(seed=4))
    for parameter in net.trainable_params():
        parameter.set_data(ms.Tensor(loaded[parameter.name], ms.float32))
    with optimizer.averaged_weights():
        for name, weight in weights_of(net).items():
            np.testing.assert_array_equal(weight, loaded[name])


@pytest.mark.parametrize("part", ["without averages", "network only"])
def test_averages_that_a_checkpoint_lacks_start_from_its_weights(part: str, mode: int) -> None:
    """The step count comes along, so that the averages of the weights before would count as many steps."""
    net = net_of()
    optimizer = ms_kfac.KFAC(net, 0.2, damping=0.1, **fixed_intervals(2, 2))
    run(functional_step(net, optimizer, cross_entropy()), data(0, STEPS))
    content = checkpoint_of(net) if part == "network only" else checkpoint_of(net, optimizer)

    other = net_of(seed=3)
    resumed = ms_kfac.KFAC(other, 0.2, averaging=0.6, damping=0.1, **fixed_intervals(2, 2))
    step = functional_step(other, resumed, cross_entropy())
    run(step, data(0, 1))
    told = resumed.restore(content)
    assert "polyak.layers.0.weight" in told.kept
    start = weights_of(net)
    with resumed.averaged_weights():
        for name, weight in weights_of(other).items():
            np.testing.assert_array_equal(weight, start[name], err_msg=name)

    run(step, data(STEPS, STEPS + 1))
    after = weights_of(other)
    # The second step of the network alone, whose step count stays: 1 - 1/2.
    kept = 0.5 if part == "network only" else 0.6
    with resumed.averaged_weights():
        for name, average in weights_of(other).items():
            expected = kept * start[name] + (1 - kept) * after[name]
            tolerance = 1e-6 * np.abs(expected).max()
            np.testing.assert_allclose(average, expected, rtol=0, atol=tolerance, err_msg=name)
