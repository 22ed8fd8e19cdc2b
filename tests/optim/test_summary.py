"""The summary: totals, folding, reasons."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn, ops

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import cross_entropy, gradient_function
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron


def repeated(layers: int) -> nn.SequentialCell:
    cells = [nn.SequentialCell(nn.Dense(4, 4), nn.BatchNorm1d(4)) for _ in range(layers)]
    return nn.SequentialCell(*cells, nn.Dense(4, 3, has_bias=False))


def test_totals_and_options() -> None:
    text = ms_kfac.KFAC(repeated(2), 0.1, damping=0.25, kl_clip=None, fisher="sampled").summary()
    # 2 (16 + 4) + 12 of those and 2 (4 + 4) of the normalization.
    assert "3 layers preconditioned: 76.5 % of 68 weights" in text
    for option in ("damping=0.25", "kl_clip=None", "fisher='sampled'"):
        assert option in text


def test_first_order_parameters_are_named_by_reason() -> None:
    text = ms_kfac.KFAC(repeated(3), 0.1, skip=("^3$",)).summary()
    assert "4 cells first-order: 36 weights" in text
    lines = text.splitlines()
    (skipped,) = [line for line in lines if "skip pattern" in line]
    assert skipped == "  3.weight (Dense; 12 weights): skip pattern '^3$'"
    (normalization,) = [line for line in lines if "normalization=" in line]
    assert (
        "0.1.gamma, 0.1.beta, 1.1.gamma, 1.1.beta and 2 more (3 BatchNorm1d; 24 weights): " in normalization
    )
    everything = ms_kfac.KFAC(repeated(3), 0.1).summary(every_layer=True)
    assert "2.1.gamma, 2.1.beta (3 BatchNorm1d" in everything


def test_parameters_outside_the_network_are_first_order() -> None:
    net = nn.SequentialCell(nn.Dense(2, 2))
    outside = [
        Parameter(ms.Tensor([1.0] * 3, ms.float32), name="temperature"),
        Parameter(ms.Tensor([1.0] * 2, ms.float32), name="loss.scale"),
    ]
    optimizer = ms_kfac.KFAC(net, 0.1, params=[*net.trainable_params(), *outside])
    lines = optimizer.summary().splitlines()
    assert any("1 layer preconditioned: 54.5 % of 11 weights" in line for line in lines)
    assert lines[-2:] == [
        "2 parameters outside the network first-order: 5 weights, updated by momentum",
        "  temperature, loss.scale (2 Parameter; 5 weights): given in params=, but not in the network",
    ]
    params = [*net.trainable_params(), outside[0]]
    with pytest.warns(UserWarning, match="no layer of the network is preconditioned"):
        skipping = ms_kfac.KFAC(net, 0.1, params=params, skip=("0",), name="b")
    assert "1 cell and 1 parameter outside the network first-order: 9 weights" in skipping.summary()


def test_large_networks_are_folded() -> None:
    optimizer = ms_kfac.KFAC(repeated(20), 0.1)
    folded = optimizer.summary().splitlines()
    (row,) = [line for line in folded if line.startswith("0.0 ... 19.0 (20)")]
    assert "A 5, G 4" in row
    assert any(line.startswith("20 ") and "A 4, G 3" in line for line in folded)
    assert sum(" dense " in line for line in optimizer.summary(every_layer=True).splitlines()) == 21
    # Small networks have a row per layer in any case.
    assert sum(" dense " in line for line in ms_kfac.KFAC(repeated(4), 0.1).summary().splitlines()) == 5


def test_nothing_to_precondition_gives_a_warning() -> None:
    with pytest.warns(UserWarning, match="KFAC: no layer of the network is preconditioned"):
        optimizer = ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1, skip=("0",))
    assert "0 layers preconditioned: 0.0 % of 6 weights" in optimizer.summary()


@pytest.mark.parametrize("method", [ms_kfac.KFAC, ms_kfac.TKFAC, ms_kfac.SKFAC, ms_kfac.EKFAC])
def test_options_by_position_are_refused_with_the_way_out(method: type[nn.Optimizer]) -> None:
    with pytest.raises(TypeError, match=r"\(network, learning_rate, momentum=0.9\), got 0.8 by position"):
        method(nn.SequentialCell(nn.Dense(2, 2)), 0.1, 0.8)


@pytest.mark.parametrize("verify", ["warn", "off"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_statistics_that_were_never_finite_are_the_reason(verify: str) -> None:
    """The loop replaces NaN in the gradients by 0, so that steps are taken and batches refused."""
    net = Perceptron((4, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, verify=verify, **fixed_intervals(1, 1))
    gradient = gradient_function(net, optimizer, cross_entropy())
    x = np.full((5, 4), np.nan)
    for _ in range(2):
        gradients = gradient(tensor(x), ms.Tensor([0, 1, 2, 0, 1], ms.int32))[1]
        optimizer(tuple(ops.where(ops.isfinite(one), one, 0.0) for one in gradients))
    assert optimizer.refreshes()["statistics"] == 2
    assert not optimizer.diagnostics()["layers"]["layers.0"]["preconditioned"]
    (reason,) = [line for line in optimizer.summary().splitlines() if "layers.0" in line]
    assert reason.endswith("all its batches of statistics held NaN or Inf")
