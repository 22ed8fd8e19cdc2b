"""What the optimizer does to the net: the same objects, names and values, and a checkpoint still loads."""

from __future__ import annotations

import contextlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import functional_step, run, train_by
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches, weights_of


def test_objects_and_names_stay() -> None:
    net = SmallNet()
    cells = dict(net.cells_and_names())
    parameters = [(p.name, id(p)) for p in net.get_parameters()]
    ms_kfac.KFAC(net, 0.1)
    assert [(p.name, id(p)) for p in net.get_parameters()] == parameters
    assert {name: id(cell) for name, cell in net.cells_and_names() if name in cells} == {
        name: id(cell) for name, cell in cells.items()
    }
    assert isinstance(net.conv1, nn.Conv2d)
    assert isinstance(net.head, nn.Dense)
    assert net.conv1.kernel_size == (3, 3)


def test_outputs_stay(mode: int) -> None:
    x = tensor(batches(1)[0][0])
    net = SmallNet()
    plain = net(x).asnumpy()
    ms_kfac.KFAC(net, 0.1)
    np.testing.assert_array_equal(net(x).asnumpy(), plain)


def test_a_layer_can_be_called_alone_before_training(mode: int) -> None:
    """As one does to look at features; in graph mode the layer is then compiled on its own first."""
    x, y = batches(1)[0]
    net = SmallNet()
    plain = net.conv1(tensor(x)).asnumpy()
    optimizer = ms_kfac.KFAC(net, 0.1)
    np.testing.assert_array_equal(net.conv1(tensor(x)).asnumpy(), plain)
    train_by("functional", net, optimizer, [(x, y)])
    assert np.abs(optimizer.factors("conv1")["G"]).max() > 0


def test_checkpoints_move_between_tapped_and_untapped(mode: int, tmp_path: Path) -> None:
    plain, tapped = SmallNet(seed=1), SmallNet(seed=2)
    ms.save_checkpoint(plain, str(tmp_path / "plain.ckpt"))
    optimizer = ms_kfac.KFAC(tapped, 0.1)
    missing, unexpected = ms.load_param_into_net(tapped, ms.load_checkpoint(str(tmp_path / "plain.ckpt")))
    assert not missing
    assert not unexpected
    np.testing.assert_array_equal(weights_of(tapped)["conv1.weight"], weights_of(plain)["conv1.weight"])

    train_by("functional", tapped, optimizer, batches(1))
    ms.save_checkpoint(tapped, str(tmp_path / "tapped.ckpt"))
    missing, unexpected = ms.load_param_into_net(plain, ms.load_checkpoint(str(tmp_path / "tapped.ckpt")))
    assert not missing
    assert not unexpected
    for name, weight in weights_of(tapped).items():
        np.testing.assert_array_equal(weights_of(plain)[name], weight)


def test_layers_in_a_sequential_cell(mode: int) -> None:
    """`SequentialCell` keeps a list of its cells in addition to the dictionary: both must run the tap."""
    net = nn.SequentialCell(nn.Dense(4, 6), nn.Tanh(), nn.SequentialCell(nn.Dense(6, 5)))
    optimizer = ms_kfac.KFAC(net, 0.1)
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    train_by("functional", net, optimizer, [(x, batches(1)[0][1])])
    for name in ("0", "2.0"):
        assert np.abs(optimizer.factors(name)["G"]).max() > 0


class Tied(nn.Cell):
    """An encoder and a decoder that share a weight, and a separate layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Dense(5, 5, has_bias=False)
        self.decoder = nn.Dense(5, 5, has_bias=False)
        self.decoder.weight = self.encoder.weight
        self.free = nn.Dense(5, 5)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.decoder(ms.ops.tanh(self.free(self.encoder(x))))


def test_tied_weights_stay_tied_and_first_order(mode: int) -> None:
    net = Tied()
    with pytest.warns(UserWarning, match="45.5 % of the weights have no curvature"):
        optimizer = ms_kfac.KFAC(net, 0.1)
    before = net.encoder.weight.asnumpy().copy()
    x = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    train_by("functional", net, optimizer, [(x, batches(1)[0][1])])
    assert net.decoder.weight is net.encoder.weight
    assert not np.array_equal(net.encoder.weight.asnumpy(), before)
    assert optimizer.factors("free")["A"].shape == (6, 6)
    for name in ("encoder", "decoder"):
        with pytest.raises((KeyError, ValueError)):
            optimizer.factors(name)
    reasons = [line for line in optimizer.summary().splitlines() if "encoder" in line or "decoder" in line]
    assert reasons
    assert all("shared" in line or "tied" in line for line in reasons), reasons


class Scaled(nn.Conv2d):
    """A subclass that works on the result of its parent's `construct`."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(x)


def test_an_overridden_construct_is_preconditioned(mode: int) -> None:
    """A and G belong to the affine part, so the factor 2 after it shows in G."""
    x, y = batches(1)[0]

    def head(conv: nn.Cell) -> nn.Cell:
        dense = nn.Dense(3 * 6 * 5, 5)
        rng = np.random.default_rng(3)
        dense.weight.set_data(tensor(rng.standard_normal(dense.weight.shape)))
        dense.bias.set_data(tensor(np.zeros(5)))
        conv.weight.set_data(tensor(0.1 * rng.standard_normal(conv.weight.shape)))
        return nn.SequentialCell(conv, nn.Flatten(), dense)

    doubled, plain = head(Scaled(2, 3, 3)), head(nn.Conv2d(2, 3, 3))
    plain[0].weight.set_data(2.0 * plain[0].weight)
    found = []
    for net in (doubled, plain):
        optimizer = ms_kfac.KFAC(net, 0.1)
        train_by("functional", net, optimizer, [(x, y)])
        found.append(optimizer.factors("0"))
    np.testing.assert_allclose(found[0]["A"], found[1]["A"], rtol=1e-6)
    scale = np.abs(found[0]["G"]).max()
    np.testing.assert_allclose(found[0]["G"], 4 * found[1]["G"], rtol=1e-4, atol=1e-5 * scale)


def test_skip_pattern_without_a_match_gives_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    ms_kfac.KFAC(SmallNet(), 0.1, skip=("conv",))
    assert not [w for w in recwarn if "skips nothing" in str(w.message)]
    with pytest.warns(UserWarning, match="no layer's name has 'cnov', so that it skips nothing"):
        ms_kfac.KFAC(SmallNet(), 0.1, skip=("conv", "cnov"))


def test_summary_names_every_layer_and_why() -> None:
    net = SmallNet()
    text = ms_kfac.KFAC(net, 0.1, skip=("head",)).summary()
    lines = text.splitlines()
    for name in (*SMALL_NET_LAYERS, "norm"):
        assert any(name in line for line in lines), name
    conv1 = next(line for line in lines if "conv1" in line)
    assert "19" in conv1  # 2 channels of 3x3 and the bias
    assert "4" in conv1
    assert "skip" in next(line for line in lines if "head" in line)
    assert "BatchNorm" in next(line for line in lines if "norm" in line)


def test_frozen_layers_are_skipped(mode: int) -> None:
    """A layer whose weight isn't trained is neither preconditioned nor moved."""
    net = SmallNet()
    for p in net.conv1.get_parameters():
        p.requires_grad = False
    optimizer = ms_kfac.KFAC(net, 0.1)
    before = net.conv1.weight.asnumpy().copy()
    train_by("functional", net, optimizer, batches(2))
    np.testing.assert_array_equal(net.conv1.weight.asnumpy(), before)
    with pytest.raises((KeyError, ValueError)):
        optimizer.factors("conv1")


def test_a_net_can_be_tapped_again(mode: int) -> None:
    """A second optimizer on one net, as for a second run in a notebook, trains like the first did."""
    data = batches(2)
    results = []
    for repeats in (1, 2):
        net = SmallNet()
        for _ in range(repeats - 1):
            ms_kfac.KFAC(net, 0.1)
        with pytest.warns(UserWarning) if repeats > 1 else contextlib.nullcontext():
            optimizer = ms_kfac.KFAC(net, 0.1)
        net.set_train(True)
        run(functional_step(net, optimizer, nn.CrossEntropyLoss()), data)
        results.append(weights_of(net))
    for name, weight in results[0].items():
        np.testing.assert_allclose(results[1][name], weight, rtol=1e-5, atol=1e-6, err_msg=name)
