"""Blocks of transformers: attention whose projections are dense layers, and pre-norm residual blocks.

Vaswani et al. 2017, "Attention is all you need", with the normalization before each branch. MindSpore's
``nn.MultiheadAttention`` multiplies by its weights without calling a layer, so nothing in it can be tapped.
"""

from __future__ import annotations

import mindspore as ms
import mindspore.nn as nn
import numpy as np
from mindspore import Tensor, ops
from mindspore.common.initializer import Normal, Zero

# Standard deviation of the initial weights in GPT-2 and in DeiT (Touvron et al. 2021).
DEVIATION = 0.02
# Added to the scores of later positions; float32's softmax of it is exactly zero.
_MASKED = -1e9

PROJECTIONS = ("separate", "joint")


def projection(inputs: int, outputs: int, deviation: float = DEVIATION, *, bias: bool = True) -> nn.Dense:
    """A dense layer with normal weights and zero biases.

    Args:
        inputs: the input size.
        outputs: the output size.
        deviation: the standard deviation of the initial weights.
        bias: whether the layer has a bias.

    Returns:
        The layer.
    """
    return nn.Dense(inputs, outputs, weight_init=Normal(deviation), bias_init=Zero(), has_bias=bias)


class SelfAttention(nn.Cell):
    """Multi-head self-attention.

    Args:
        width: the width of a position.
        heads: the number of heads, a divisor of the width.
        projections: "separate" for three dense layers q, k and v, "joint" for one of three times the width.
            The function and the number of weights are the same; the curvature blocks are not.
        context: the largest number of positions of causal attention, in which a position sees itself and
            earlier ones. Default: None, every position sees all.
        deviation: the standard deviation of the initial weights of the output projection.

    Raises:
        ValueError: the heads don't divide the width, or the projections are unknown.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        projections: str = "separate",
        context: int | None = None,
        deviation: float = DEVIATION,
    ) -> None:
        """Builds the layers."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads: must be a divisor of the width {width}, got {heads!r}")
        if projections not in PROJECTIONS:
            raise ValueError(f"projections: must be {' or '.join(PROJECTIONS)}, got {projections!r}")
        self.heads = heads
        self.joint = projections == "joint"
        self.causal = context is not None
        self.scale = (width // heads) ** -0.5
        if self.joint:
            self.qkv = projection(width, 3 * width)
            self.split = ops.Split(axis=-1, output_num=3)
        else:
            self.q, self.k, self.v = (projection(width, width) for _ in range(3))
        if context is not None:
            self.context = context
            self.mask = Tensor(np.triu(np.full((context, context), _MASKED), 1), ms.float32)
        self.scores = ops.BatchMatMul(transpose_b=True)
        self.mix = ops.BatchMatMul()
        self.out = projection(width, width, deviation)

    def split_heads(self, x: Tensor) -> Tensor:
        """Maps (N, T, width) to (N, heads, T, width / heads)."""
        n, t, width = x.shape
        return x.reshape((n, t, self.heads, width // self.heads)).transpose((0, 2, 1, 3))

    def construct(self, x: Tensor) -> Tensor:
        """Maps (N, T, width) to the same shape."""
        if self.joint:
            q, k, v = self.split(self.qkv(x))
        else:
            q, k, v = self.q(x), self.k(x), self.v(x)
        scores = self.scores(self.split_heads(q) * self.scale, self.split_heads(k))
        if self.causal:
            t = x.shape[1]
            scores = scores + (self.mask if t == self.context else self.mask[:t, :t])
        mixed = self.mix(ops.softmax(scores, -1), self.split_heads(v))
        return self.out(mixed.transpose((0, 2, 1, 3)).reshape(x.shape))


class TransformerBlock(nn.Cell):
    """Attention and a two-layer network with GELU, each normalized before and added to its input.

    Args:
        width: the width of a position.
        heads: the number of heads.
        projections: as in :class:`SelfAttention`.
        context: as in :class:`SelfAttention`.
        deviation: the standard deviation of the initial weights of the two layers that add to the residual.
        epsilon: the constant that the normalizations add to the variance.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        projections: str = "separate",
        context: int | None = None,
        deviation: float = DEVIATION,
        epsilon: float = 1e-5,
    ) -> None:
        """Builds the layers."""
        super().__init__()
        self.norm1 = nn.LayerNorm((width,), epsilon=epsilon)
        self.attention = SelfAttention(
            width, heads, projections=projections, context=context, deviation=deviation
        )
        self.norm2 = nn.LayerNorm((width,), epsilon=epsilon)
        self.fc1 = projection(width, 4 * width)
        # The approximation by tanh, MindSpore's default, takes twice the time on CPUs.
        self.gelu = nn.GELU(approximate=False)
        self.fc2 = projection(4 * width, width, deviation)

    def construct(self, x: Tensor) -> Tensor:
        """Maps (N, T, width) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))
