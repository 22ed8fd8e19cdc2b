"""Small networks with hand-written derivatives, in float64.

Each module keeps what its backward pass needs. The gradient that flows back is that of the *reduced* (mean)
loss; the affine modules keep their input in `a` and N times the output gradient in `g`: the per-sample one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tests.oracle.factors import conv_factors, dense_factors
from tests.oracle.patches import Geometry, convolve, extract, fold
from tests.oracle.unit_wise import unit_wise_fisher

Weights = Mapping[str, np.ndarray]


class Module:
    """A step of the network; those without weights have an empty name."""

    name = ""

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        """The output for x."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        """The gradient for x; adds those of the weights to `gradients`."""
        raise NotImplementedError

    def factors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(A, G) of the last batch in the expand setting; None for a module that is not affine."""
        return None

    def fisher(self) -> np.ndarray:
        """F (C, 2, 2) of the last batch; for normalisations only."""
        raise NotImplementedError


class Dense(Module):
    """y = x Wᵀ + b with x (N, ..., d_in)."""

    def __init__(self, name: str, bias: bool = True) -> None:
        self.name, self.bias = name, bias

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        self.a = x
        y = x @ weights[f"{self.name}.weight"].T
        return y + weights[f"{self.name}.bias"] if self.bias else y

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        self.g = dy * len(dy)
        rows, inputs = dy.reshape(-1, dy.shape[-1]), self.a.reshape(-1, self.a.shape[-1])
        gradients[f"{self.name}.weight"] = rows.T @ inputs
        if self.bias:
            gradients[f"{self.name}.bias"] = rows.sum(axis=0)
        return dy @ weights[f"{self.name}.weight"]

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        return dense_factors(self.a, self.g, self.bias)


class Conv(Module):
    """A convolution of any geometry."""

    def __init__(self, name: str, geometry: Geometry) -> None:
        self.name, self.geometry = name, geometry

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        self.a = x
        bias = weights[f"{self.name}.bias"] if self.geometry.bias else None
        return convolve(x, weights[f"{self.name}.weight"], bias, self.geometry)

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        self.g = dy * len(dy)
        shape = self.geometry
        weight = weights[f"{self.name}.weight"]
        patches = extract(self.a, shape)
        per_in, per_out = shape.in_channels // shape.groups, shape.out_channels // shape.groups
        d_weight, d_patches = np.zeros_like(weight), np.zeros_like(patches)
        for group in range(shape.groups):
            outs = slice(group * per_out, (group + 1) * per_out)
            ins = slice(group * per_in, (group + 1) * per_in)
            d_weight[outs] = np.einsum("nohw,nhwcij->ocij", dy[:, outs], patches[:, :, :, ins])
            d_patches[:, :, :, ins] = np.einsum("nohw,ocij->nhwcij", dy[:, outs], weight[outs])
        gradients[f"{self.name}.weight"] = d_weight
        if shape.bias:
            gradients[f"{self.name}.bias"] = dy.sum(axis=(0, 2, 3))
        return fold(d_patches, shape)

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        return conv_factors(self.a, self.g, self.geometry)


class BatchNorm(Module):
    """Batch normalisation of (N, C, H, W) with the batch's own moments, as in training."""

    def __init__(self, name: str, epsilon: float = 1e-5) -> None:
        self.name, self.epsilon = name, epsilon

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        centred = x - x.mean(axis=(0, 2, 3), keepdims=True)
        self.scale = 1 / np.sqrt(centred.var(axis=(0, 2, 3), keepdims=True) + self.epsilon)
        self.normal = centred * self.scale
        gamma, beta = weights[f"{self.name}.gamma"], weights[f"{self.name}.beta"]
        return self.normal * gamma[:, None, None] + beta[:, None, None]

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        self.g = dy * len(dy)
        gradients[f"{self.name}.gamma"] = (dy * self.normal).sum(axis=(0, 2, 3))
        gradients[f"{self.name}.beta"] = dy.sum(axis=(0, 2, 3))
        d_normal = dy * weights[f"{self.name}.gamma"][:, None, None]
        axes = (0, 2, 3)
        projected = self.normal * (d_normal * self.normal).mean(axis=axes, keepdims=True)
        return self.scale * (d_normal - d_normal.mean(axis=axes, keepdims=True) - projected)

    def fisher(self) -> np.ndarray:
        return unit_wise_fisher(np.moveaxis(self.normal, 1, -1), np.moveaxis(self.g, 1, -1))


class LayerNorm(Module):
    """Normalisation of every (n, t) over the last axis of (N, T, d)."""

    def __init__(self, name: str, epsilon: float = 1e-7) -> None:
        self.name, self.epsilon = name, epsilon

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        self.scale = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + self.epsilon)
        self.normal = (x - x.mean(axis=-1, keepdims=True)) * self.scale
        return self.normal * weights[f"{self.name}.gamma"] + weights[f"{self.name}.beta"]

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        self.g = dy * len(dy)
        gradients[f"{self.name}.gamma"] = (dy * self.normal).sum(axis=(0, 1))
        gradients[f"{self.name}.beta"] = dy.sum(axis=(0, 1))
        d_normal = dy * weights[f"{self.name}.gamma"]
        projected = self.normal * (d_normal * self.normal).mean(axis=-1, keepdims=True)
        return self.scale * (d_normal - d_normal.mean(axis=-1, keepdims=True) - projected)

    def fisher(self) -> np.ndarray:
        return unit_wise_fisher(self.normal, self.g)


class Embedding(Module):
    """Rows of a table for ids (N, T); a dense layer on one-hot inputs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        table = weights[f"{self.name}.embedding_table"]
        self.one_hot = np.eye(len(table))[x.astype(int)]
        return self.one_hot @ table

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        self.g = dy * len(dy)
        gradients[f"{self.name}.embedding_table"] = np.einsum("ntv,ntd->vd", self.one_hot, dy)
        return np.zeros(dy.shape[:-1])

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        return dense_factors(self.one_hot, self.g, False)


class Tanh(Module):
    """Smooth, so that float32 and float64 never fall on different sides of a kink."""

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        return dy * (1 - self.y**2)


class Flatten(Module):
    """(N, ...) to (N, d)."""

    def forward(self, x: np.ndarray, weights: Weights) -> np.ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: np.ndarray, weights: Weights, gradients: dict[str, np.ndarray]) -> np.ndarray:
        return dy.reshape(self.shape)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean loss and its gradient for the logits (N, classes)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(probabilities[rows, labels]).mean()
    probabilities[rows, labels] -= 1
    return float(loss), probabilities / len(labels)


def differentiate(
    modules: Sequence[Module], weights: Weights, x: np.ndarray, labels: np.ndarray
) -> tuple[float, dict[str, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Loss, gradients by weight name and (A, G) by layer name, for the mean cross-entropy."""
    x = np.asarray(x, np.float64)
    for module in modules:
        x = module.forward(x, weights)
    loss, flow = cross_entropy(x, labels)
    gradients: dict[str, np.ndarray] = {}
    for module in reversed(modules):
        flow = module.backward(flow, weights, gradients)
    statistics = {}
    for module in modules:
        pair = module.factors()
        if pair is not None:
            statistics[module.name] = pair
    return loss, gradients, statistics
