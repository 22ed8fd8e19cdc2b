"""What the step refuses before it begins."""

from __future__ import annotations

from contextlib import nullcontext

import mindspore as ms
import pytest

import ms_kfac
from tests.support.bank import tensor
from tests.support.forms import fallback
from tests.support.networks import WIDTHS, Perceptron, vectors, weights_of


@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("delivered", ["all", "some"])
def test_gradients_of_other_parameters(mode: int, delivered: str, compiled: bool, native: bool) -> None:
    """All of the network's for some parameters, or the reverse: as after freezing or with two optimizers."""
    net = Perceptron(WIDTHS)
    every = net.trainable_params()
    trained, differentiated = (every[2:], every) if delivered == "all" else (every, every[2:])
    with nullcontext() if native else fallback():
        optimizer = ms_kfac.KFAC(net, 0.1, params=trained)
    assert len(trained) != len(differentiated)

    def loss(x: ms.Tensor) -> ms.Tensor:
        return (net(x) ** 2).mean()

    gradient = ms.grad(loss, None, ms.ParameterTuple(differentiated))

    def step(x: ms.Tensor) -> ms.Tensor:
        return optimizer(gradient(x))

    step = ms.jit(step) if compiled else step
    before = weights_of(net)
    counts = rf"one Tensor per parameter \({len(trained)}\), got {len(differentiated)}"
    with pytest.raises(ValueError, match=counts):
        step(tensor(vectors(1)[0][0]))
    for name, weight in weights_of(net).items():
        assert (weight == before[name]).all(), name
