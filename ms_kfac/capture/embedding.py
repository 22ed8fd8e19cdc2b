"""Embedding tables: ``nn.Embedding``, ``nn.EmbeddingLookup`` and ``mint.nn.Embedding``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.statistics.dense_locations import DenseGradients
from ms_kfac.ops.statistics.embedding_statistics import IdCounts
from ms_kfac.ops.statistics.projections import EmbeddingProjections
from ms_kfac.ops.statistics.second_moment import RowSecondMoment


@dataclass(frozen=True)
class EmbeddingOperators(LayerOperators):
    """Operators of an embedding: counts of ids, and rows of output gradients.

    Attributes:
        vocabulary: number of rows of the table.
        padding: id whose row has no gradient; -1 if there is none. Default: -1.
    """

    vocabulary: int
    padding: int = -1

    # Ids have no axis of features.
    feature_axes = 0

    def activations(self, reduce: bool) -> nn.Cell:
        return IdCounts(self.vocabulary, reduce=reduce, padding=self.padding)

    def gradients(self, reduce: bool) -> nn.Cell:
        return DenseGradients(reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return RowSecondMoment()

    def native_geometry(self) -> dict[str, Any] | None:
        if self.padding >= 0:
            # The kernels can't leave out the gradients of a padding id.
            return None
        return {"convolution": False, "bias": False, "vocabulary": self.vocabulary}

    def projections(self) -> nn.Cell:
        return EmbeddingProjections(self.vocabulary, self.gradients(False), padding=self.padding)


@register_layer(nn.Embedding)
def describe_embedding(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.Embedding``.

    ``padding_idx`` needs no special case: ``nn.Embedding`` initialises that row with zeros and then trains it
    like the others.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.Embedding``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``.
    """
    if overrides_construct(cell, nn.Embedding):
        return "it overrides the construct of Embedding"
    return _layer(name, cell, cell.embedding_table)


@register_layer(nn.EmbeddingLookup)
def describe_embedding_lookup(name: str, cell: Any) -> Layer | str:
    """Describe an ``nn.EmbeddingLookup``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.EmbeddingLookup``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, sparse
        gradients, or rows that are clipped by their norm.
    """
    if overrides_construct(cell, nn.EmbeddingLookup):
        return "it overrides the construct of EmbeddingLookup"
    if cell.sparse or cell.target == "CPU":
        return "its gradients are sparse (target='DEVICE' with sparse=False has dense gradients)"
    if cell.max_norm is not None:
        return "max_norm clips its rows"
    return _layer(name, cell, cell.embedding_table)


@register_layer(mint.nn.Embedding)
def describe_mint_embedding(name: str, cell: Any) -> Layer | str:
    """Describe a ``mint.nn.Embedding``. The row of its ``padding_idx`` has no gradient.

    Args:
        name: the cell's name in the network.
        cell: a ``mint.nn.Embedding``.

    Returns:
        The layer, or the reason why it can't be preconditioned: an overridden ``construct``, rows that are
        clipped by their norm, or gradients divided by the frequency of an id.
    """
    if overrides_construct(cell, mint.nn.Embedding):
        return "it overrides the construct of Embedding"
    if cell.max_norm is not None:
        return "max_norm clips its rows"
    if cell.scale_grad_by_freq:
        return "scale_grad_by_freq divides its gradients"
    padding = -1 if cell.padding_idx is None else cell.padding_idx % cell.num_embeddings
    return _layer(name, cell, cell.weight, padding)


def _layer(name: str, cell: Any, table: Any, padding: int = -1) -> Layer:
    operators = EmbeddingOperators(bias=False, vocabulary=int(table.shape[0]), padding=padding)
    return Layer(name=name, kind="embedding", cell=cell, weight=table, bias=None, operators=operators)
