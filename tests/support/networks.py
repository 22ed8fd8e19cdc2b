"""One small net twice: as a MindSpore cell and as the float64 reference, with the same names."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import nn

from tests.oracle import network
from tests.oracle.patches import Geometry
from tests.support.bank import convolution, randomise

CLASSES = 5
CONV1 = Geometry(2, 4, kernel=(3, 3), pad_mode="same", bias=True, image=(6, 5))
CONV2 = Geometry(4, 4, kernel=(3, 2), stride=(2, 1), pad_mode="valid", groups=2, image=(6, 5))
FEATURES = 4 * 2 * 4


class SmallNet(nn.Cell):
    """Convolution, BatchNorm, grouped convolution, Dense: every kind of parameter, few weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.conv1 = convolution(CONV1, rng)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = convolution(CONV2, rng)
        self.flatten = nn.Flatten()
        self.head = nn.Dense(FEATURES, CLASSES)
        self.activation = nn.Tanh()
        randomise(self, rng, 0.3)
        self.norm.gamma.set_data(ms.Tensor(1 + 0.1 * rng.standard_normal(4), ms.float32))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        x = self.activation(self.norm(self.conv1(x)))
        x = self.activation(self.conv2(x))
        return self.head(self.flatten(x))


SMALL_NET_LAYERS = ("conv1", "conv2", "head")


def small_net_reference() -> list[network.Module]:
    """The modules of `SmallNet`, for `tests.oracle.network.differentiate`."""
    return [
        network.Conv("conv1", CONV1),
        network.BatchNorm("norm"),
        network.Tanh(),
        network.Conv("conv2", CONV2),
        network.Tanh(),
        network.Flatten(),
        network.Dense("head"),
    ]


def weights_of(net: nn.Cell, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """The trainable weights by name."""
    return {p.name: p.asnumpy().astype(dtype) for p in net.trainable_params()}


def batches(count: int, size: int = 8, seed: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """(images, labels) for `SmallNet`."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((size, 2, *CONV1.image)).astype(np.float32),
            rng.integers(0, CLASSES, size).astype(np.int32),
        )
        for _ in range(count)
    ]


class Perceptron(nn.Cell):
    """Dense layers `layers.0`, `layers.1`, ... with tanh between them, or nothing for a deep linear net."""

    def __init__(self, widths: Sequence[int], linear: bool = False, bias: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.layers = nn.CellList([nn.Dense(m, n, has_bias=bias) for m, n in zip(widths, widths[1:])])
        self.linear = linear
        self.activation = nn.Tanh()
        randomise(self, np.random.default_rng(seed))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        for i in range(len(self.layers)):
            if i > 0 and not self.linear:
                x = self.activation(x)
            x = self.layers[i](x)
        return x


def perceptron_reference(depth: int, linear: bool = False, bias: bool = True) -> list[network.Module]:
    """The modules of `Perceptron`."""
    modules: list[network.Module] = []
    for i in range(depth):
        if i > 0 and not linear:
            modules.append(network.Tanh())
        modules.append(network.Dense(f"layers.{i}", bias))
    return modules


# Widths of a small Perceptron, and its batches.
WIDTHS = (5, 6, 3)


def vectors(count: int, seed: int = 0, samples: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches for a Perceptron of WIDTHS: float32 inputs and int32 labels."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((samples, WIDTHS[0])).astype(np.float32),
            rng.integers(0, WIDTHS[-1], samples).astype(np.int32),
        )
        for _ in range(count)
    ]
