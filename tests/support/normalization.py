"""Normalisation layers and embedding tables of every form that is preconditioned, with their references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import mint, nn, ops

import ms_kfac
from ms_kfac.capture import Layer, ScaleOperators
from tests.oracle import network
from tests.oracle.factors import dense_factors
from tests.oracle.unit_wise import batch_normalized, layer_normalized, normalize, unit_wise_fisher
from tests.support.bank import randomise


@dataclass(frozen=True)
class Case:
    """A layer for `tests.support.bank.Bank`.

    `name` is what the layer adds to its name in the bank; `fisher(x, g)` is F for the per-sample gradients g.
    `stands_in` computes the layer's output if MindSpore has no CPU kernel for it.
    """

    layer: nn.Cell
    shape: tuple[int, ...]
    fisher: Callable[[np.ndarray, np.ndarray], np.ndarray]
    batch_moments: bool = False
    name: str = ""
    stands_in: nn.Cell | None = None


class Affine(nn.Cell):
    """x times weight plus bias. The statistics see the layer's input, and the gradient of its output."""

    def __init__(self, layer: nn.Cell, *, channels_first: bool) -> None:
        super().__init__(auto_prefix=False)
        self.weight, self.bias = affine_parameters(layer)
        self.has_bias = self.bias is not None
        self.channels_first = channels_first

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        shape = (1, -1, *(1 for _ in x.shape[2:])) if self.channels_first else self.weight.shape
        y = x * ops.reshape(self.weight, shape)
        return y + ops.reshape(self.bias, shape) if self.has_bias else y


def affine_parameters(layer: nn.Cell) -> tuple[ms.Parameter, ms.Parameter | None]:
    """(gamma, beta) of a layer, under its own names; beta is None if there is none."""
    if hasattr(layer, "gamma"):
        return layer.gamma, layer.beta
    return layer.weight, getattr(layer, "bias", None)


class RootMeanSquare(nn.Cell):
    """RMSNorm as users write it."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.ones(width), ms.float32), name="weight")
        self.epsilon = epsilon

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return x * ops.rsqrt(ops.square(x).mean(-1, keep_dims=True) + self.epsilon) * self.weight


class LayerScale(nn.Cell):
    """A scale of the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.ones(width), ms.float32), name="weight")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return x * self.weight


@ms_kfac.register_layer(RootMeanSquare, LayerScale)
def describe_scale(name: str, cell: Any) -> Layer:
    operators = ScaleOperators(
        bias=False, shape=tuple(cell.weight.shape), epsilon=getattr(cell, "epsilon", None)
    )
    return Layer(
        name=name, kind="normalization", cell=cell, weight=cell.weight, bias=None, operators=operators
    )


def batch_norm_fisher(epsilon: float = 1e-5) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F of a batch normalisation, channels in axis 1."""
    return lambda x, g: unit_wise_fisher(batch_normalized(x, epsilon), np.moveaxis(g, 1, -1))


def layer_norm_fisher(axes: int = 1, epsilon: float = 1e-7) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F of a layer normalisation over the last `axes` axes."""
    return lambda x, g: unit_wise_fisher(
        layer_normalized(x, axes, epsilon), g.reshape(*g.shape[: g.ndim - axes], -1)
    )


def group_norm_fisher(groups: int, epsilon: float = 1e-5) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F of a group normalisation, channels in axis 1."""

    def fisher(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        x_hat = normalize(x.reshape(len(x), groups, -1), (2,), epsilon).reshape(x.shape)
        return unit_wise_fisher(np.moveaxis(x_hat, 1, -1), np.moveaxis(g, 1, -1))

    return fisher


def scale_fisher(epsilon: float | None) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F (C, 1, 1) of a scale without beta."""

    def fisher(x: np.ndarray, g: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if epsilon is not None:
            x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
        return unit_wise_fisher(x, g)[:, :1, :1]

    return fisher


def with_stand_in(layer: nn.Cell, *case: Any, channels_first: bool = True, **options: Any) -> Case:
    """A case of a layer without a CPU kernel."""
    return Case(layer, *case, stands_in=Affine(layer, channels_first=channels_first), **options)


def more_normalizations() -> list[Case]:
    """Group and instance normalisation, `mint.nn`'s layers, and scales."""
    batch = {"batch_moments": True}
    mint_batch = mint.nn.BatchNorm2d(2, eps=0.3), (2, 3, 4), batch_norm_fisher(0.3)
    return [
        Case(nn.GroupNorm(2, 4), (4, 3, 2), group_norm_fisher(2)),
        Case(nn.GroupNorm(2, 4, eps=0.2), (4,), group_norm_fisher(2, 0.2)),
        Case(mint.nn.GroupNorm(1, 3), (3, 4), group_norm_fisher(1)),
        Case(nn.SyncBatchNorm(2, process_groups=0), (2, 3, 2), batch_norm_fisher(), **batch),
        Case(mint.nn.SyncBatchNorm(2, eps=0.3), (2, 3, 2), batch_norm_fisher(0.3), **batch),
        Case(RootMeanSquare(4, 0.1), (3, 4), scale_fisher(0.1)),
        Case(LayerScale(4), (2, 3, 4), scale_fisher(None)),
        with_stand_in(nn.InstanceNorm1d(3), (3, 4), group_norm_fisher(3)),
        with_stand_in(nn.InstanceNorm2d(2, eps=0.2), (2, 3, 4), group_norm_fisher(2, 0.2)),
        with_stand_in(nn.InstanceNorm3d(2), (2, 2, 3, 2), group_norm_fisher(2)),
        with_stand_in(mint.nn.BatchNorm1d(3), (3,), batch_norm_fisher(), **batch),
        with_stand_in(*mint_batch, **batch),
        with_stand_in(
            mint.nn.BatchNorm3d(2, track_running_stats=False), (2, 2, 3, 2), batch_norm_fisher(), **batch
        ),
        with_stand_in(mint.nn.LayerNorm((2, 3)), (2, 2, 3), layer_norm_fisher(2, 1e-5), channels_first=False),
        with_stand_in(
            mint.nn.LayerNorm(4, bias=False),
            (3, 4),
            lambda x, g: layer_norm_fisher(1, 1e-5)(x, g)[:, :1, :1],
            channels_first=False,
        ),
    ]


def normalizations() -> list[Case]:
    """Batch normalisation on every rank, layer normalisation over one axis and over several."""
    batch = {"batch_moments": True}
    return [
        Case(nn.BatchNorm1d(3), (3,), batch_norm_fisher(), **batch),
        Case(nn.BatchNorm1d(3), (3, 4), batch_norm_fisher(), **batch),
        Case(nn.BatchNorm2d(2, eps=0.3), (2, 3, 4), batch_norm_fisher(0.3), **batch),
        Case(nn.BatchNorm2d(2, use_batch_statistics=True), (2, 2, 3), batch_norm_fisher(), **batch),
        Case(nn.BatchNorm3d(2), (2, 2, 3, 2), batch_norm_fisher(), name=".bn2d", **batch),
        Case(nn.LayerNorm((4,)), (4,), layer_norm_fisher()),
        Case(nn.LayerNorm((4,), epsilon=0.2), (3, 4), layer_norm_fisher(epsilon=0.2)),
        Case(nn.LayerNorm((2, 3), begin_norm_axis=2, begin_params_axis=2), (2, 2, 3), layer_norm_fisher(2)),
        Case(nn.LayerNorm((2, 3), begin_norm_axis=1, begin_params_axis=1), (2, 3), layer_norm_fisher(2)),
    ]


VOCABULARY, WIDTH = 5, 3


def embeddings() -> list[tuple[nn.Cell, tuple[int, ...]]]:
    """Tables, and the axes of their ids after the samples."""
    return [
        (nn.Embedding(VOCABULARY, WIDTH), (4,)),
        (nn.Embedding(VOCABULARY, WIDTH), ()),
        (nn.Embedding(VOCABULARY, WIDTH, use_one_hot=True), (4,)),
        (nn.Embedding(VOCABULARY, WIDTH, padding_idx=1), (2, 3)),
    ]


def embedding_factors(ids: np.ndarray, g: np.ndarray, sharing: str) -> tuple[np.ndarray, np.ndarray]:
    """(A, G) of a table as a dense layer on one-hot inputs, A whole."""
    return dense_factors(np.eye(VOCABULARY)[ids], g, False, sharing)


TOKENS, CLASSES = 4, 5


class TokenNet(nn.Cell):
    """Embedding, layer normalisation and dense layers on (N, T, d)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.norm = nn.LayerNorm((6,))
        self.mix = nn.Dense(6, 3)
        self.activation = nn.Tanh()
        self.flatten = nn.Flatten()
        self.head = nn.Dense(3 * TOKENS, CLASSES)
        rng = np.random.default_rng(seed)
        randomise(self, rng, 0.5)
        self.norm.gamma.set_data(ms.Tensor(1 + 0.1 * rng.standard_normal(6), ms.float32))

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        x = self.activation(self.mix(self.norm(self.embed(ids))))
        return self.head(self.flatten(x))


def token_net_reference() -> list[network.Module]:
    """The modules of `TokenNet`."""
    return [
        network.Embedding("embed"),
        network.LayerNorm("norm"),
        network.Dense("mix"),
        network.Tanh(),
        network.Flatten(),
        network.Dense("head"),
    ]


def token_batches(count: int, size: int = 8, seed: int = 2) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, labels) for `TokenNet`; id 6 never occurs."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.integers(0, 6, (size, TOKENS)).astype(np.int32),
            rng.integers(0, CLASSES, size).astype(np.int32),
        )
        for _ in range(count)
    ]
