"""Layers that are frozen and unfrozen between steps, and layers that a pass does not reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import randomise
from tests.support.loops import Batch, Step, cell_step, cross_entropy, functional_step, jit_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, weights_of


@pytest.fixture
def data(rng: np.random.Generator) -> list[Batch]:
    return [(rng.standard_normal((8, 4)), rng.integers(0, 3, 8)) for _ in range(5)]


def freeze(layer: nn.Cell, frozen: bool) -> None:
    for parameter in layer.get_parameters():
        parameter.requires_grad = not frozen


def kfac(net: nn.Cell, reduction: str, **options: object) -> nn.Optimizer:
    # Unclipped: the clip gives a gradient of another length the same step.
    options = {"kl_clip": None, "damping": 0.1, **fixed_intervals(1, 2), **options}
    return ms_kfac.KFAC(net, 0.1, reduction=reduction, **options)


def train_with_pause(data: Sequence[Batch], reduction: str, frozen: Sequence[int]) -> list[np.ndarray]:
    """Weights after each step; the layers are frozen in steps 2 and 3."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = Perceptron((4, 5, 4, 3))
    # Without momentum, which moves frozen weights on, as in nn.Momentum.
    optimizer = kfac(net, reduction, momentum=0.0)
    step = functional_step(net, optimizer, cross_entropy(reduction))
    weights = []
    for index, batch in enumerate(data):
        for layer in frozen:
            freeze(net.layers[layer], index in (2, 3))
        run(step, [batch])
        weights.append(np.concatenate([p.asnumpy().ravel() for p in net.get_parameters()]))
        states = [checked.state for checked in optimizer.verification.checked]
        assert "mismatch" not in states
        assert states.count("verified") == (3 - len(frozen) if index in (2, 3) else 3)
    return weights


@pytest.mark.parametrize("frozen", [(2,), (0, 1)], ids=["last", "all_but_the_last"])
def test_layers_frozen_for_some_steps(frozen: Sequence[int], data: list[Batch]) -> None:
    """The count does not depend on a frozen layer: the sum of the losses takes the steps of their mean."""
    means, sums = (train_with_pause(data, reduction, frozen) for reduction in ("mean", "sum"))
    size = 4 * 5 + 5
    for index, (mean, total) in enumerate(zip(means, sums)):
        # Sums in float32 that are divided by a power of two before or after rounding.
        np.testing.assert_allclose(mean, total, rtol=0, atol=1e-5)
        moved = np.abs(mean - means[index - 1]) if index else np.ones_like(mean)
        assert (moved[:size].max() == 0) == (0 in frozen and index in (2, 3))
        assert moved[size:].max() > 0


@pytest.mark.parametrize("way", [cell_step, jit_step], ids=["cell", "jit"])
def test_compiled_steps_say_that_they_train_a_frozen_layer(
    way: Callable[..., Step], data: list[Batch]
) -> None:
    """As with nn.Momentum, requires_grad has no effect on a step that holds the Parameter."""
    ms.set_context(mode=ms.GRAPH_MODE if way is cell_step else ms.PYNATIVE_MODE)
    found = []
    for reduction in ("mean", "sum"):
        net = Perceptron((4, 5, 3))
        step = way(net, kfac(net, reduction), cross_entropy(reduction))
        run(step, data[:2])
        freeze(net.layers[0], True)
        before = net.layers[0].weight.asnumpy().copy()
        with pytest.warns(
            UserWarning, match=r"layers\.0 are frozen \(requires_grad=False\), but are trained"
        ):
            run(step, data[2:3])
            # Steps run behind Python: the read waits for the warning.
            weights = [parameter.asnumpy() for parameter in net.get_parameters()]
        assert np.abs(net.layers[0].weight.asnumpy() - before).max() > 0
        found.append(weights)
    for mean, total in zip(*found):
        # Sums in float32 that are divided by a power of two before or after rounding.
        np.testing.assert_allclose(mean, total, rtol=0, atol=1e-5)


class Heads(nn.Cell):
    """Two heads that the loss does not use, around the layer that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Dense(4, 2), nn.Dense(4, 3), nn.Dense(3, 2)
        randomise(self, np.random.default_rng(0))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.body(x)


def test_an_unknown_number_of_samples_moves_nothing(mode: int, data: list[Batch]) -> None:
    """Not a step that is N times too long. Leaving the unused layers out repairs it."""
    net = Heads()
    step = functional_step(net, kfac(net, "sum"), cross_entropy("sum"))
    before = weights_of(net)
    with pytest.warns(UserWarning, match=r"samples is unknown.*passes of layers first, last, and no pass"):
        run(step, data[:1])
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, before[name], err_msg=name)

    found = {}
    for reduction in ("mean", "sum"):
        net = Heads()
        optimizer = kfac(net, reduction, skip=["first", "last"])
        run(functional_step(net, optimizer, cross_entropy(reduction)), data[:2])
        found[reduction] = net.body.weight.asnumpy()
    np.testing.assert_allclose(found["sum"], found["mean"], rtol=0, atol=1e-6)
    assert np.abs(found["sum"] - before["body.weight"]).max() > 1e-3
