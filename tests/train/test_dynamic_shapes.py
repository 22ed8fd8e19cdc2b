"""One compiled step for every batch size: `set_inputs` with None."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

import ms_kfac
from ms_kfac.curvature import (
    DiagonalBlock,
    EigenbasisBlock,
    KroneckerBlock,
    ShermanMorrisonBlock,
    TraceRestrictedBlock,
)
from ms_kfac.kernels.backward_operator import shape_of_static_inputs
from tests.support.bank import randomise, tensor
from tests.support.forms import fallback
from tests.support.loops import cross_entropy
from tests.support.methods import METHODS, fixed_intervals
from tests.support.networks import Perceptron

SIZES = (6, 1)


class Everything(nn.Cell):
    """A layer for each statistics operator, with and without several locations per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3, has_bias=True)
        self.norm = nn.BatchNorm2d(3)
        self.table = nn.Embedding(7, 4)
        self.first = nn.Dense(4, 4, activation="tanh")
        self.second = nn.Dense(4, 3, activation="tanh")
        self.head = nn.Dense(3, 3)
        self.shift = ms.Parameter(ms.ops.zeros(3), name="shift")
        randomise(self, np.random.default_rng(0))

    def construct(self, images: Tensor, words: Tensor) -> Tensor:
        seen = self.norm(self.convolution(images)).mean(axis=(2, 3))
        read = self.second(self.first(self.table(words))).mean(axis=1)
        return self.head(seen + read) + self.shift


class WithLoss(nn.Cell):
    def __init__(self, net: nn.Cell) -> None:
        super().__init__()
        self.net, self.loss = net, cross_entropy("sum")

    def construct(self, images: Tensor, words: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.net(images, words), labels)


BLOCKS = {
    "convolution": EigenbasisBlock,
    "first": TraceRestrictedBlock,
    "second": ShermanMorrisonBlock,
    "head": KroneckerBlock,
    "other": DiagonalBlock,
}


def everything(mode: int) -> tuple[list[float], dict[str, dict[str, np.ndarray]]]:
    """Losses and factors."""
    ms.set_context(mode=mode)
    net = Everything()
    options = {"normalization": "unit_wise", "reduction": "sum", **fixed_intervals(1, 1)}
    optimizer = ms_kfac.EKFAC(net, 0.1, blocks=BLOCKS, **options)
    cell = nn.TrainOneStepCell(WithLoss(net), optimizer)
    cell.set_train()
    cell.set_inputs(
        Tensor(shape=[None, 2, 4, 4], dtype=ms.float32),
        Tensor(shape=[None, None], dtype=ms.int32),
        Tensor(shape=[None], dtype=ms.int32),
    )
    rng, losses = np.random.default_rng(3), []
    for size in SIZES:
        images, words = rng.standard_normal((size, 2, 4, 4)), rng.integers(0, 7, (size, 3))
        losses.append(float(cell(tensor(images), tensor(words), tensor(rng.integers(0, 3, size))).asnumpy()))
    return losses, {layer: optimizer.factors(layer) for layer in optimizer.layers}


def test_one_graph_for_all_sizes() -> None:
    """Losses and factors are those of PyNative mode, where each operator sees the sizes as they are."""
    expected, expected_factors = everything(ms.PYNATIVE_MODE)
    found, factors = everything(ms.GRAPH_MODE)
    # Sums in float32, in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for layer, names in expected_factors.items():
        for key, factor in names.items():
            if not key.startswith("Q"):  # The sign of an eigenvector is free.
                close = {"rtol": 1e-3, "atol": 1e-4 * np.abs(factor).max()}
                np.testing.assert_allclose(factors[layer][key], factor, err_msg=f"{layer} {key}", **close)


def train(name: str, net: nn.Cell, inputs: Any) -> list[float]:
    method, options = METHODS[name]
    optimizer = method(net, 0.1, **options)
    cell = nn.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer)
    cell.set_train()
    shape = [None, *inputs[0].shape[1:]]
    cell.set_inputs(Tensor(shape=shape, dtype=ms.float32), Tensor(shape=[None], dtype=ms.int32))
    return [float(cell(tensor(x), tensor(np.arange(len(x)) % 3)).asnumpy()) for x in inputs]


def test_skfac_stores_sums_when_the_size_is_unknown(rng: np.random.Generator) -> None:
    inputs = [rng.standard_normal((size, 4)) for size in (6, 2)]
    losses = []
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        losses.append(train("SKFAC", Perceptron((4, 5, 3)), inputs))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_skfac_refuses_an_unknown_size_after_a_small_batch() -> None:
    operator = ms_kfac.SKFAC(Perceptron((4, 5, 3)), 0.1).blocks[0].operator
    assert operator.ranks_for((2, 5)) == (2, 2)
    with pytest.raises(ValueError, match="set_inputs: SKFAC needs inputs without None after"):
        operator.ranks_for((None, 5))


def test_a_fallback_that_needs_static_shapes_says_so(rng: np.random.Generator) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    net = nn.SequentialCell(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Dense(48, 3))
    refusal = r"set_inputs: .* needs inputs without None\. Leave set_inputs out"
    with fallback(), pytest.raises(ValueError, match=refusal):
        train("SKFAC", net, [rng.standard_normal((4, 2, 4, 4))])


def test_cuda_kernels_refuse_dynamic_shapes() -> None:
    assert shape_of_static_inputs([8, 4], [8, 3], []) == (1,)
    with pytest.raises(ValueError, match="set_inputs: the CUDA kernels need shapes without None"):
        shape_of_static_inputs([-1, 4], [-1, 3], [])
