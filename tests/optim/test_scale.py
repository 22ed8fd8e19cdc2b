"""The same update for mean and sum, for one batch and micro-batches, and for every loss scale."""

from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from ms_kfac.capture.tap import SampleCounter
from tests.support.bank import tensor
from tests.support.loops import Batch, cross_entropy, functional_step, gradient_function, run
from tests.support.methods import fixed_intervals
from tests.support.networks import SMALL_NET_LAYERS, Perceptron, SmallNet, batches, weights_of

STEPS = 3
OPTIONS = {"damping": 0.02, **fixed_intervals(1, 2), "weight_decay": 0.01}


def frozen_norm_net() -> SmallNet:
    """`SmallNet` with BatchNorm on its running moments: otherwise a micro-batch is another function."""
    net = SmallNet()
    net.set_train(False)
    return net


Result = tuple[dict[str, np.ndarray], dict[tuple[str, str], np.ndarray]]


def result(net: nn.Cell, optimizer: nn.Optimizer) -> Result:
    """The weights by name and the factors by layer and letter."""
    factors = {
        (layer, letter): factor
        for layer in SMALL_NET_LAYERS
        for letter, factor in optimizer.factors(layer).items()
    }
    return weights_of(net), factors


# Micro-batches that were not announced are recognised at the first commit, which has the last of them alone.
# Here that step moves nothing, and later statistics keep nothing of it.
UNANNOUNCED = {"learning_rate": [0.0, 0.1, 0.1], "momentum": 0.0, "factor_decay": 0.0, "inverse_interval": 1}


def plain_run(scale: float = 1.0, reduction: str = "mean", **options: object) -> Result:
    """One whole batch a step."""
    net = frozen_norm_net()
    options = {"learning_rate": 0.1, "loss_scale": scale, "reduction": reduction, **OPTIONS, **options}
    optimizer = ms_kfac.KFAC(net, **options)
    run(functional_step(net, optimizer, cross_entropy(reduction), scale), batches(STEPS))
    return result(net, optimizer)


@functools.cache
def baseline(mode: int) -> Result:
    """Mean reduction, no loss scale, no micro-batches: run once per mode."""
    return plain_run()


@functools.cache
def unannounced_baseline(mode: int) -> Result:
    """The same with a first step that moves nothing."""
    return plain_run(**UNANNOUNCED)


def assert_same(expected: Result, found: Result) -> None:
    """Weights and factors of two runs: float32 rounding behind damped inverses of condition 1e2 to 1e3."""
    start = weights_of(frozen_norm_net())
    for name, weight in expected[0].items():
        moved = np.abs(weight - start[name]).max()
        assert moved > 1e-4, name
        np.testing.assert_allclose(found[0][name], weight, rtol=0, atol=1e-3 * moved, err_msg=name)
    for key, factor in expected[1].items():
        scale = np.abs(factor).max()
        np.testing.assert_allclose(found[1][key], factor, rtol=0, atol=2e-4 * scale, err_msg=str(key))


@pytest.mark.parametrize(
    ("scale", "reduction"), [(1024.0, "mean"), (1.0, "sum"), (128.0, "sum")], ids=["scale", "sum", "both"]
)
def test_loss_scale_and_reduction(mode: int, scale: float, reduction: str) -> None:
    assert_same(baseline(mode), plain_run(scale, reduction))


def halves(batch: Batch) -> list[Batch]:
    x, y = batch
    middle = len(x) // 2
    return [(x[:middle], y[:middle]), (x[middle:], y[middle:])]


def accumulated_run(weight: float, factor: float, reduction: str = "mean", **options: object) -> Result:
    """Two backward passes a step on losses times `factor`; `weight` times the sum of their gradients."""
    net = frozen_norm_net()
    options = {"learning_rate": 0.1, "reduction": reduction, **OPTIONS, **options}
    optimizer = ms_kfac.KFAC(net, **options)
    gradient = gradient_function(net, optimizer, cross_entropy(reduction), factor)
    for batch in batches(STEPS):
        parts = [gradient(tensor(x), tensor(y))[1] for x, y in halves(batch)]
        optimizer(tuple((a + b) * weight for a, b in zip(*parts)))
    return result(net, optimizer)


def test_averaged_gradients_of_two_micro_batches(mode: int) -> None:
    assert_same(unannounced_baseline(mode), accumulated_run(0.5, 1.0, **UNANNOUNCED))


def test_two_micro_batches_with_divided_losses(mode: int) -> None:
    """The other habit: each loss is divided by 2 before its backward pass; here under a loss scale too."""
    assert_same(baseline(mode), accumulated_run(1.0, 256.0 / 2, loss_scale=256.0, accumulation_steps=2))


def test_two_micro_batches_with_sum_reduction(mode: int) -> None:
    found = accumulated_run(1.0, 1.0, reduction="sum", **UNANNOUNCED)
    assert_same(unannounced_baseline(mode), found)


def test_two_micro_batches_with_divided_sum_losses(mode: int) -> None:
    """Both conventions at once: sums over the batch, each divided by the number of micro-batches."""
    assert_same(baseline(mode), accumulated_run(1.0, 0.5, reduction="sum", accumulation_steps=2))


def test_micro_batches_may_be_views(mode: int) -> None:
    """Slices of one Tensor on the device, not copies of slices of an array."""
    net = frozen_norm_net()
    optimizer = ms_kfac.KFAC(net, **{**OPTIONS, **UNANNOUNCED})
    gradient = gradient_function(net, optimizer, cross_entropy())
    for x, y in batches(STEPS):
        images, labels, middle = tensor(x), tensor(y), len(x) // 2
        first = gradient(images[:middle], labels[:middle])[1]
        second = gradient(images[middle:], labels[middle:])[1]
        optimizer(tuple((a + b) * 0.5 for a, b in zip(first, second)))
    assert_same(unannounced_baseline(mode), result(net, optimizer))


class OneSample(nn.Cell):
    """A network whose inputs have no batch axis."""

    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.expand_dims(self.net(x), 0)


UNBATCHED = {
    "dense": (lambda: Perceptron((4, 6, 3)), [0.5, -1.0, 2.0, 0.25]),
    "embedding": (lambda: nn.SequentialCell(nn.Embedding(5, 3)), 2),
}


@pytest.mark.parametrize("name", UNBATCHED)
def test_an_input_without_a_batch_axis_is_one_sample(mode: int, name: str) -> None:
    """A vector of d features is not d samples."""
    make, x = UNBATCHED[name]
    found = []
    for reduction in ("mean", "sum"):
        ms.set_seed(4)
        net = OneSample(make())
        start = weights_of(net)
        optimizer = ms_kfac.KFAC(net, 0.1, reduction=reduction, kl_clip=None, **OPTIONS)
        step = functional_step(net, optimizer, cross_entropy(reduction))
        given = ms.Tensor(x, ms.int32 if name == "embedding" else ms.float32)
        for _ in range(2):
            step(given, ms.Tensor([1], ms.int32))
        found.append({key: weight - start[key] for key, weight in weights_of(net).items()})
    for key, moved in found[0].items():
        assert np.abs(moved).max() > 1e-4, key
        np.testing.assert_allclose(found[1][key], moved, rtol=0, atol=1e-4 * np.abs(moved).max(), err_msg=key)


@pytest.mark.parametrize(
    ("shape", "sample_axis", "feature_axes", "samples"),
    [
        ((7,), 0, 1, 1),
        ((5, 7), 0, 1, 5),
        ((5, 2, 7), 0, 1, 5),
        ((), 0, 0, 1),
        ((5,), 0, 0, 5),
        # Time comes first: an input of two axes is one sample.
        ((7,), 1, 1, 1),
        ((2, 7), 1, 1, 1),
        ((2, 5, 7), 1, 1, 5),
    ],
)
def test_samples_of_every_shape(
    mode: int, shape: tuple[int, ...], sample_axis: int, feature_axes: int, samples: int
) -> None:
    counter = SampleCounter("samples", ms.Parameter(ms.Tensor(np.ones(8), ms.float32), name="record"))
    counter.sample_axis, counter.feature_axes = sample_axis, feature_axes
    counter(ms.Tensor(np.zeros(shape), ms.float32), ms.Tensor(0.0), counter.sums, counter.last)
    assert counter.sums.asnumpy().tolist() == [samples, 1.0]
