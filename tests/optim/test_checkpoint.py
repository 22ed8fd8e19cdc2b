"""All of the optimizer's state is in Parameters: a run that is stopped and resumed is the same run."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.loops import as_dataset, cross_entropy, run, train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, weights_of

OPTIONS = {"damping": [0.1, 0.05, 0.04, 0.03, 0.02, 0.01], **fixed_intervals(2, 3)}


def build(seed: int) -> tuple[SmallNet, nn.Optimizer]:
    net = SmallNet(seed)
    return net, ms_kfac.KFAC(net, [0.1, 0.09, 0.08, 0.07, 0.06, 0.05], **OPTIONS)


def test_state_has_distinct_names() -> None:
    net, optimizer = build(0)
    names = [p.name for p in optimizer.get_parameters()]
    assert len(names) == len(set(names))
    own = [p.name for p in optimizer.get_parameters() if all(p is not q for q in net.get_parameters())]
    assert not set(own) & {p.name for p in net.get_parameters()}


def test_resumed_run_equals_the_whole_run(mode: int, tmp_path: Path) -> None:
    """Stopped after 4 of 6 steps: between two inverse refreshes, with schedules and momentum under way."""
    data = batches(6)
    whole, optimizer = build(0)
    train_by("functional", whole, optimizer, data[:4])
    net_file, state_file = str(tmp_path / "net.ckpt"), str(tmp_path / "state.ckpt")
    ms.save_checkpoint(whole, net_file)
    ms.save_checkpoint(optimizer, state_file)
    train_by("functional", whole, optimizer, data[4:])

    resumed, other = build(5)
    ms.load_param_into_net(resumed, ms.load_checkpoint(net_file))
    missing, _ = ms.load_param_into_net(other, ms.load_checkpoint(state_file))
    assert not missing
    train_by("functional", resumed, other, data[4:])

    for name, weight in weights_of(whole).items():
        np.testing.assert_allclose(weights_of(resumed)[name], weight, rtol=1e-5, atol=1e-6, err_msg=name)
    for layer in SMALL_NET_LAYERS:
        for letter, factor in optimizer.factors(layer).items():
            np.testing.assert_allclose(other.factors(layer)[letter], factor, rtol=1e-5, atol=1e-6)


def test_checkpoint_of_the_training_cell(mode: int, tmp_path: Path) -> None:
    """`ModelCheckpoint` saves net and optimizer together; the file brings both back."""
    data = batches(2)
    net, optimizer = build(0)
    model = ms.Model(net, cross_entropy(), optimizer)
    config = ms.CheckpointConfig(save_checkpoint_steps=2)
    callback = ms.ModelCheckpoint("run", str(tmp_path), config)
    model.train(1, as_dataset(data), callbacks=[callback], dataset_sink_mode=False)
    (file,) = tmp_path.glob("*.ckpt")

    other_net, other = build(5)
    content = ms.load_checkpoint(str(file))
    assert not ms.load_param_into_net(other_net, content)[0]
    assert not ms.load_param_into_net(other, content)[0]
    assert int(other.global_step.asnumpy().reshape(-1)[0]) == 2
    for layer in SMALL_NET_LAYERS:
        for letter, factor in optimizer.factors(layer).items():
            np.testing.assert_array_equal(other.factors(layer)[letter], factor)


@pytest.mark.parametrize("adapts", [False, True], ids=["sampled", "sampled, Levenberg-Marquardt"])
def test_rng_damping_and_averages_resume(mode: int, adapts: bool, tmp_path: Path) -> None:
    """Bit for bit: the resumed run draws the targets that the whole run drew, though its seed is another."""
    data = batches(6)

    def start(seed: int) -> tuple[SmallNet, nn.Optimizer, nn.Cell]:
        ms.set_seed(seed)
        net = SmallNet(seed)
        damping = ms_kfac.LevenbergMarquardt(0.1, interval=2) if adapts else 0.1
        intervals = fixed_intervals(1, 2)
        optimizer = ms_kfac.KFAC(net, 0.05, fisher="sampled", averaging=0.9, damping=damping, **intervals)
        cell = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer)
        cell.set_train()
        return net, optimizer, cell

    whole, optimizer, step = start(0)
    run(step, data[:3])
    ms.save_checkpoint(whole, str(tmp_path / "net.ckpt"))
    ms.save_checkpoint(optimizer, str(tmp_path / "state.ckpt"))
    run(step, data[3:])

    resumed, other, next_step = start(7)
    ms.load_param_into_net(resumed, ms.load_checkpoint(str(tmp_path / "net.ckpt")))
    missing, _ = ms.load_param_into_net(other, ms.load_checkpoint(str(tmp_path / "state.ckpt")))
    assert not missing
    run(next_step, data[3:])
    for found, expected in ((resumed, whole), (other, optimizer)):
        values = {p.name: p.asnumpy() for p in found.get_parameters()}
        for parameter in expected.get_parameters():
            np.testing.assert_array_equal(values[parameter.name], parameter.asnumpy(), err_msg=parameter.name)
