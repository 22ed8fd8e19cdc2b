"""A GPT on bytes.

Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2): normalization before each
branch and after the last block, learned positions, and residual branches that start with weights smaller by
the square root of their number.
"""

from __future__ import annotations

import mindspore as ms
import mindspore.nn as nn
from mindspore import Tensor, ops
from mindspore.common.initializer import Normal

from model_zoo.common.transformer import DEVIATION, TransformerBlock, projection


class GPT(nn.Cell):
    """Maps ids to the logits of the next id, at each position.

    Args:
        context: the largest number of positions.
        width: the width of a position.
        depth: the number of blocks.
        heads: the number of heads, a divisor of the width.
        projections: "separate" or "joint": see :class:`model_zoo.common.transformer.SelfAttention`.
        tied: whether the decoder is the table of the embedding, as in GPT-2.
        vocabulary: the number of ids.

    Raises:
        ValueError: as in `SelfAttention`.
    """

    def __init__(
        self,
        context: int = 64,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        projections: str = "separate",
        tied: bool = False,
        *,
        vocabulary: int = 256,
    ) -> None:
        """Builds the layers."""
        super().__init__()
        branch = DEVIATION / (2 * depth) ** 0.5
        self.token_embedding = nn.Embedding(vocabulary, width, embedding_table=Normal(DEVIATION))
        self.position_embedding = nn.Embedding(context, width, embedding_table=Normal(DEVIATION))
        self.blocks = nn.SequentialCell(
            [
                TransformerBlock(width, heads, projections=projections, context=context, deviation=branch)
                for _ in range(depth)
            ]
        )
        self.norm = nn.LayerNorm((width,), epsilon=1e-5)
        self.head = projection(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token_embedding.embedding_table

    def construct(self, ids: Tensor) -> Tensor:
        """Maps int32 ids (N, T) to logits (N, T, vocabulary)."""
        n, t = ids.shape
        # With a batch axis: K-FAC counts samples on the first axis of an embedding's ids.
        places = ops.broadcast_to(ops.arange(0, t, dtype=ms.int32), (n, t))
        return self.head(self.norm(self.blocks(self.token_embedding(ids) + self.position_embedding(places))))
