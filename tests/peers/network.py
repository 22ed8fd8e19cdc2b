"""A convolution and two dense layers with tanh, and one batch: the network that every library computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn

from ms_kfac.optim.base import SecondOrderOptimizer
from tests.support.bank import randomise
from tests.support.loops import train_by
from tests.support.networks import weights_of

LAYERS = ("conv", "hidden", "head")
PARTS = ("weight", "bias")
CHANNELS, IMAGE, KERNEL, FILTERS = 3, (6, 5), (3, 3), 4
FEATURES, HIDDEN, CLASSES, BATCH = FILTERS * IMAGE[0] * IMAGE[1], 10, 5, 16
DAMPING = 0.01


class Network(nn.Cell):
    """The network in MindSpore."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, FILTERS, KERNEL, pad_mode="same", has_bias=True)
        self.hidden = nn.Dense(FEATURES, HIDDEN)
        self.head = nn.Dense(HIDDEN, CLASSES)
        self.tanh = nn.Tanh()
        self.flatten = nn.Flatten()
        randomise(self, np.random.default_rng(0), 0.3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        x = self.tanh(self.conv(x))
        return self.head(self.tanh(self.hidden(self.flatten(x))))


def batch() -> tuple[np.ndarray, np.ndarray]:
    """(images, labels)."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((BATCH, CHANNELS, *IMAGE)).astype(np.float32)
    return images, rng.integers(0, CLASSES, BATCH).astype(np.int32)


@dataclass(frozen=True)
class Step:
    """A step of an optimizer: weights by name, factors by layer and name."""

    before: Mapping[str, np.ndarray]
    after: Mapping[str, np.ndarray]
    factors: Mapping[str, Mapping[str, np.ndarray]]

    def direction(self, layer: str) -> np.ndarray:
        """U of weight and bias as one matrix, the bias last."""
        weight, bias = (self.before[f"{layer}.{part}"] - self.after[f"{layer}.{part}"] for part in PARTS)
        return np.concatenate([weight.reshape(len(weight), -1), bias[:, None]], axis=1)


def last_step(method: type[SecondOrderOptimizer], *, steps: int = 1, **options: object) -> Step:
    """Steps on one batch, of which the last alone moves the weights, by −U."""
    network = Network()
    before = weights_of(network)
    optimizer = method(
        network,
        [0.0] * (steps - 1) + [1.0],
        damping=DAMPING,
        momentum=0.0,
        kl_clip=None,
        factor_interval=1,
        inverse_interval=1,
        **options,
    )
    train_by("functional", network, optimizer, [batch()] * steps)
    return Step(before, weights_of(network), {layer: optimizer.factors(layer) for layer in LAYERS})
