"""Layers whose statistics do not belong to their gradient stay first-order, and the summary says so."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import randomise, tensor
from tests.support.loops import cross_entropy, functional_step

N, T, VOCABULARY, WIDTH, CLASSES = 6, 3, 9, 5, 4
RATE = 0.05
OPTIONS: dict[str, Any] = {
    "damping": 0.01,
    "factor_interval": ms_kfac.FixedInterval(1),
    "inverse_interval": ms_kfac.FixedInterval(1),
}


class TiedDecoder(nn.Cell):
    """A language model whose decoder multiplies by the embedding table."""

    def __init__(self) -> None:
        super().__init__()
        self.odd = nn.Embedding(VOCABULARY, WIDTH)
        self.first = nn.Dense(WIDTH, WIDTH, activation="tanh")
        self.last = nn.Dense(WIDTH, WIDTH, activation="tanh")
        randomise(self, np.random.default_rng(0))

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        hidden = self.last(self.first(self.odd(ids)))
        return ops.matmul(hidden, self.odd.embedding_table.T).reshape((-1, VOCABULARY))


class SpectralDense(nn.Dense):
    """Normalizes its weight before it calls the layer's own primitive."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.bias_add(self.matmul(x, self.weight / ops.norm(self.weight)), self.bias)


class StandardizedConv(nn.Conv2d):
    """Standardizes its weight before it calls the layer's own primitive."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        centered = self.weight - self.weight.mean(axis=(1, 2, 3), keep_dims=True)
        variance = ops.square(centered).mean(axis=(1, 2, 3), keep_dims=True)
        return self.bias_add(self.conv2d(x, centered / ops.sqrt(variance + 1e-5)), self.bias)


class SpectralWrapper(nn.Cell):
    """Uses the normalized weight of a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Dense(WIDTH, WIDTH)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.dense(x, self.layer.weight / ops.norm(self.layer.weight), self.layer.bias)


class WeightNormDense(nn.Cell):
    """Owns direction and length of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = ms.Parameter(ops.ones((WIDTH, WIDTH)), name="direction")
        self.length = ms.Parameter(ops.ones((WIDTH, 1)), name="length")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return ops.dense(x, self.length * self.direction / ops.norm(self.direction, dim=1, keepdim=True))


class Dense3(nn.Cell):
    """A layer between two others."""

    def __init__(self, odd: nn.Cell) -> None:
        super().__init__()
        self.first = nn.Dense(WIDTH, WIDTH, activation="tanh")
        self.odd = odd
        self.last = nn.Dense(WIDTH, CLASSES)
        randomise(self, np.random.default_rng(1))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.last(ops.tanh(self.odd(self.first(x))))


class Conv3(Dense3):
    """The same with images."""

    def __init__(self) -> None:
        super().__init__(StandardizedConv(2, 3, 3, has_bias=True))
        self.first = nn.Conv2d(2, 2, 3)
        self.last = nn.Dense(3, CLASSES)
        randomise(self, np.random.default_rng(2))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.last(ops.tanh(self.odd(ops.tanh(self.first(x)))).mean(axis=(2, 3)))


@dataclass(frozen=True)
class Case:
    """A network, its input and labels, and why its layer `odd` is first-order."""

    net: Callable[[], nn.Cell]
    shape: tuple[int, ...]
    warning: str
    reason: str


REFUTED = "its statistics do not belong to its gradient: the weight is used outside the layer"
BYPASSED = "no backward pass has reached its statistics: the layer is bypassed"
MISMATCH = "statistics of layer odd do not belong .* used outside its layer .* batch is refused"
CASES = {
    "tied decoder": Case(TiedDecoder, (N, T), MISMATCH, REFUTED),
    "spectral norm": Case(lambda: Dense3(SpectralDense(WIDTH, WIDTH)), (N, WIDTH), MISMATCH, REFUTED),
    "standardized convolution": Case(Conv3, (N, 2, 4, 4), MISMATCH, REFUTED),
    "spectral norm around a layer": Case(
        lambda: Dense3(SpectralWrapper()), (N, WIDTH), "no backward pass reached .* odd.layer", BYPASSED
    ),
    "weight norm with own parameters": Case(
        lambda: Dense3(WeightNormDense()),
        (N, WIDTH),
        "35.7 % of the weights have no curvature",
        "no curvature block for WeightNormDense",
    ),
}


def train(case: Case, steps: int, **options: Any) -> tuple[Any, dict[str, np.ndarray], list[str]]:
    """The optimizer, the weights and its warnings after some steps."""
    net, rng = case.net(), np.random.default_rng(8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = ms_kfac.KFAC(net, RATE, **OPTIONS, **options)
        step = functional_step(net, optimizer, cross_entropy())
        for _ in range(steps):
            ids = len(case.shape) == 2 and case.net is TiedDecoder
            x = rng.integers(0, VOCABULARY, case.shape) if ids else rng.standard_normal(case.shape)
            y = rng.integers(0, CLASSES, N * T if ids else N)
            step(tensor(x), tensor(y))
        weights = {p.name: p.asnumpy().astype(np.float64) for p in net.trainable_params()}
    return optimizer, weights, [str(w.message) for w in caught if str(w.message).startswith("KFAC")]


@pytest.mark.parametrize("name", CASES)
def test_the_layer_trains_as_if_it_were_skipped(mode: int, name: str) -> None:
    case = CASES[name]
    optimizer, found, told = train(case, 3, kl_clip=None)
    _, expected, _ = train(case, 3, kl_clip=None, skip=["odd"])
    for key, weight in expected.items():
        np.testing.assert_allclose(found[key], weight, rtol=0, atol=1e-6, err_msg=key)
    assert len(told) == 1
    assert all(re.search(case.warning, text) for text in told), told
    lines = optimizer.summary().splitlines()
    assert lines[0].startswith("KFAC(2 layers preconditioned")
    assert not any(line.startswith("odd") for line in lines)
    assert any(line.startswith("  odd.") and case.reason in line for line in lines)


@pytest.mark.parametrize("name", ["tied decoder", "spectral norm around a layer"])
def test_its_gradient_is_not_part_of_the_clip(name: str) -> None:
    clipped, _, _ = train(CASES[name], 1, kl_clip=1e-5)
    skipped, _, _ = train(CASES[name], 1, kl_clip=1e-5, skip=["odd"])
    assert clipped.clip_factor == pytest.approx(skipped.clip_factor, rel=1e-5)
    assert 0 < clipped.clip_factor < 1


def test_without_verification_it_is_preconditioned() -> None:
    """The user's word that the statistics are meant."""
    optimizer, _, told = train(CASES["tied decoder"], 1, verify="off")
    assert not told
    assert optimizer.factors("odd")["A"].any()
    assert "KFAC(3 layers preconditioned" in optimizer.summary()
