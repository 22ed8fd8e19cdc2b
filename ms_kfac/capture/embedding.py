"""Embedding tables: ``nn.Embedding``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import nn

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
    """

    vocabulary: int

    def activations(self, reduce: bool) -> nn.Cell:
        return IdCounts(self.vocabulary, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return DenseGradients(reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return RowSecondMoment()

    def projections(self) -> nn.Cell:
        return EmbeddingProjections(self.vocabulary, self.gradients(False))


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
    table = cell.embedding_table
    return Layer(
        name=name,
        kind="embedding",
        cell=cell,
        weight=table,
        bias=None,
        operators=EmbeddingOperators(bias=False, vocabulary=int(table.shape[0])),
    )
