"""Normalisation layers and embedding tables of every form that is preconditioned, with their references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn

from tests.oracle import network
from tests.oracle.factors import dense_factors
from tests.oracle.unit_wise import batch_normalized, layer_normalized, unit_wise_fisher
from tests.support.bank import randomise


@dataclass(frozen=True)
class Case:
    """A layer for `tests.support.bank.Bank`.

    `name` is what the layer adds to its name in the bank; `fisher(x, g)` is F for the per-sample gradients g.
    """

    layer: nn.Cell
    shape: tuple[int, ...]
    fisher: Callable[[np.ndarray, np.ndarray], np.ndarray]
    batch_moments: bool = False
    name: str = ""


def batch_norm_fisher(epsilon: float = 1e-5) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F of a batch normalisation, channels in axis 1."""
    return lambda x, g: unit_wise_fisher(batch_normalized(x, epsilon), np.moveaxis(g, 1, -1))


def layer_norm_fisher(axes: int = 1, epsilon: float = 1e-7) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F of a layer normalisation over the last `axes` axes."""
    return lambda x, g: unit_wise_fisher(
        layer_normalized(x, axes, epsilon), g.reshape(*g.shape[: g.ndim - axes], -1)
    )


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
