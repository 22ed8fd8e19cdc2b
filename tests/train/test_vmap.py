"""Per-sample gradients by `mindspore.vmap` through tapped layers."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

import ms_kfac
from ms_kfac.curvature import EigenbasisBlock, KroneckerBlock, ShermanMorrisonBlock, TraceRestrictedBlock
from tests.support.bank import randomise, tensor
from tests.support.forms import fallback
from tests.support.loops import cross_entropy, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron

SAMPLES = 5
REFUSAL = r"vmap: .* in a `with optimizer\.detached\(\):` block"


class Layers(nn.Cell):
    """One layer for each statistics kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3, has_bias=True)
        self.first = nn.Dense(3, 4, activation="tanh")
        self.second = nn.Dense(4, 3)
        self.head = nn.Dense(3, 3)
        randomise(self, np.random.default_rng(0))

    def construct(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.convolution(x).mean(axis=(2, 3)))))


BLOCKS = {
    "convolution": EigenbasisBlock,
    "first": TraceRestrictedBlock,
    "second": ShermanMorrisonBlock,
    "head": KroneckerBlock,
}


def test_per_sample_gradients(mode: int, rng: np.random.Generator) -> None:
    """Their mean is the gradient of the mean loss, and the statistics do not see them."""
    net = Layers()
    optimizer = ms_kfac.EKFAC(net, 0.1, blocks=BLOCKS, **fixed_intervals(1, 1))
    loss = cross_entropy()
    x, y = tensor(rng.standard_normal((SAMPLES, 2, 4, 4))), tensor(rng.integers(0, 3, SAMPLES))

    def of_one(x: Tensor, y: Tensor) -> Tensor:
        return loss(net(ops.expand_dims(x, 0)), ops.expand_dims(y, 0))

    def of_all(x: Tensor, y: Tensor) -> Tensor:
        return loss(net(x), y)

    of_batch = ms.grad(of_all, None, optimizer.parameters)(x, y)
    before = [record.asnumpy() for record in optimizer.records]
    each = ms.vmap(ms.grad(of_one, None, optimizer.parameters), in_axes=(0, 0))(x, y)
    for gradient, per_sample, parameter in zip(of_batch, each, optimizer.parameters):
        assert per_sample.shape == (SAMPLES, *parameter.shape)
        np.testing.assert_allclose(
            per_sample.asnumpy().mean(axis=0),
            gradient.asnumpy(),
            rtol=1e-4,
            atol=1e-6,
            err_msg=parameter.name,
        )
    for record, kept in zip(optimizer.records, before):
        np.testing.assert_array_equal(record.asnumpy(), kept)
    optimizer(of_batch)
    assert [checked.state for checked in optimizer.verification.checked] == ["verified"] * 4


def per_sample_gradients(net: nn.Cell, optimizer: nn.Optimizer, x: Tensor) -> tuple[Tensor, ...]:
    def of_one(x: Tensor) -> Tensor:
        return net(ops.expand_dims(x, 0)).sum()

    return ms.vmap(ms.grad(of_one, None, optimizer.parameters))(x)


def test_layers_without_a_kernel_need_detached(mode: int, rng: np.random.Generator) -> None:
    """Their fallback writes Parameters, which vmap can't do. A refusal says what to do."""
    net = Perceptron((3, 2))
    with fallback():
        optimizer = ms_kfac.SKFAC(net, 0.1)
    x = tensor(rng.standard_normal((SAMPLES, 3)))
    with pytest.raises(ValueError, match=REFUSAL):
        per_sample_gradients(net, optimizer, x)
    with optimizer.detached():
        each = per_sample_gradients(net, optimizer, x)
    np.testing.assert_allclose(each[0].asnumpy()[:, 0], x.asnumpy(), rtol=1e-6)


def test_a_summed_loss_counts_no_sample_of_vmap(mode: int, rng: np.random.Generator) -> None:
    """vmap can't count: a refusal says what to do. The step after it is the same as without it."""
    x, y = rng.standard_normal((SAMPLES, 3)), rng.integers(0, 2, SAMPLES)
    found = []
    for per_sample in (False, True):
        net = Perceptron((3, 2))
        optimizer = ms_kfac.KFAC(net, 0.1, reduction="sum", kl_clip=None, **fixed_intervals(1, 1))
        if per_sample:
            with pytest.raises(ValueError, match=REFUSAL):
                per_sample_gradients(net, optimizer, tensor(x))
            with optimizer.detached():
                per_sample_gradients(net, optimizer, tensor(x))
        run(functional_step(net, optimizer, cross_entropy("sum")), [(x, y)])
        found.append(net.layers[0].weight.asnumpy())
    np.testing.assert_array_equal(found[0], found[1])


def test_the_rule_is_for_the_kernels_of_this_package_only() -> None:
    """Another Custom operator under vmap fails as it does without this package."""
    ms.set_context(mode=ms.GRAPH_MODE)
    twice = ops.Custom(
        lambda x: x * 2, out_shape=lambda shape: shape, out_dtype=lambda dtype: dtype, func_type="pyfunc"
    )

    def function(x: Tensor) -> Tensor:
        return twice(x)

    x = tensor(np.arange(6.0).reshape(3, 2))
    np.testing.assert_allclose(ms.vmap(function)(x).asnumpy(), 2 * x.asnumpy())

    def stacked(x: Tensor) -> Tensor:
        return ops.stack((x, x))

    np.testing.assert_allclose(ms.vmap(stacked)(x).asnumpy(), np.stack([x.asnumpy()] * 2, axis=1))
