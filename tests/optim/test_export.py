"""A network with taps can be exported and its weights moved to and from one without, whatever the method."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import cell_step, cross_entropy, run
from tests.support.methods import METHODS
from tests.support.networks import SmallNet, batches, weights_of


def build(name: str, seed: int = 0) -> tuple[SmallNet, ms.nn.Optimizer]:
    method, options = METHODS[name]
    net = SmallNet(seed)
    return net, method(net, 0.05, normalization="unit_wise", **options)


@pytest.mark.parametrize("name", METHODS)
def test_weights_move_between_plain_and_tapped_networks(name: str, tmp_path: Path) -> None:
    plain, (tapped, _) = SmallNet(seed=1), build(name, seed=2)
    names = [parameter.name for parameter in plain.get_parameters()]
    assert [parameter.name for parameter in tapped.get_parameters()] == names
    for source, target in ((plain, tapped), (build(name, seed=3)[0], plain)):
        ms.save_checkpoint(source, str(tmp_path / "net.ckpt"))
        assert list(ms.load_checkpoint(str(tmp_path / "net.ckpt"))) == names
        missing, unexpected = ms.load_param_into_net(target, ms.load_checkpoint(str(tmp_path / "net.ckpt")))
        assert (missing, unexpected) == ([], [])
        for key, weight in weights_of(source).items():
            np.testing.assert_array_equal(weights_of(target)[key], weight)


@pytest.mark.parametrize("name", ["KFAC", "EKFAC"])
def test_export_in_the_middle_of_training(mode: int, name: str, tmp_path: Path) -> None:
    """The file holds the plain network; training goes on as if nothing had been."""
    data = batches(4)
    runs = []
    for exports in (False, True):
        net, optimizer = build(name)
        step = cell_step(net, optimizer, cross_entropy())
        run(step, data[:2])
        if exports:
            x = tensor(data[0][0])
            net.set_train(False)
            expected = net(x).asnumpy()
            with optimizer.detached():
                ms.export(net, x, file_name=str(tmp_path / "net"), file_format="MINDIR")
            net.set_train(True)
            loaded = nn.GraphCell(ms.load(str(tmp_path / "net.mindir")))
            names = {parameter.name for parameter in net.get_parameters()}
            assert {parameter.name for parameter in loaded.get_parameters()} == names
            # Sums of up to 36 products in another order: float32 ε times a few.
            np.testing.assert_allclose(loaded(x).asnumpy(), expected, rtol=1e-5, atol=1e-6)
        run(step, data[2:])
        runs.append((net, optimizer))
    (whole, without), (exported, optimizer) = runs
    assert optimizer.refreshes() == without.refreshes()
    for key, weight in weights_of(whole).items():
        np.testing.assert_array_equal(weights_of(exported)[key], weight, err_msg=key)


def test_taps_come_back_after_an_exception_but_not_those_of_others() -> None:
    net = SmallNet()
    first = ms_kfac.KFAC(net, 0.1)
    with pytest.raises(KeyError), first.detached():
        assert type(net.conv1) is nn.Conv2d
        raise KeyError
    assert type(net.conv1) is not nn.Conv2d
    with pytest.warns(UserWarning, match="took over layers"):
        second = ms_kfac.KFAC(net, 0.1)
    with first.detached():
        assert type(net.conv1) is not nn.Conv2d
    run(cell_step(net, second, cross_entropy()), batches(1))
    assert second.factors("conv1")["A"].any()
    assert not first.factors("conv1")["A"].any()
