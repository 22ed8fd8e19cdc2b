"""Transformer cells of MindSpore as batch-first networks of `nn.Dense`, whose factors are right."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn, ops

WIDTH, HEADS = 8, 2


class SeparateAttention(nn.Cell):
    """`nn.MultiheadAttention(batch_first=True)` of four dense layers."""

    def __init__(self, key_width: int = WIDTH, *, bias: bool = True) -> None:
        super().__init__()
        self.q_proj = nn.Dense(WIDTH, WIDTH, has_bias=bias)
        self.k_proj = nn.Dense(key_width, WIDTH, has_bias=bias)
        self.v_proj = nn.Dense(key_width, WIDTH, has_bias=bias)
        self.out_proj = nn.Dense(WIDTH, WIDTH, has_bias=bias)

    def heads(self, x: ms.Tensor) -> ms.Tensor:
        return ops.transpose(ops.reshape(x, (*x.shape[:2], HEADS, WIDTH // HEADS)), (0, 2, 1, 3))

    def construct(self, query: ms.Tensor, memory: ms.Tensor) -> ms.Tensor:
        q, k, v = self.q_proj(query), self.k_proj(memory), self.v_proj(memory)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)
        weights = ops.softmax(ops.matmul(q, ops.swapaxes(k, 2, 3)) / (WIDTH // HEADS) ** 0.5, -1)
        return self.out_proj(ops.reshape(ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3)), query.shape))


class SeparateDecoder(nn.Cell):
    """`nn.TransformerDecoderLayer(batch_first=True)` with separate projections."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = SeparateAttention()
        self.multihead_attn = SeparateAttention()
        self.dense1, self.dense2 = nn.Dense(WIDTH, 2 * WIDTH), nn.Dense(2 * WIDTH, WIDTH)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm((WIDTH,), epsilon=1e-5) for _ in range(3))

    def construct(self, target: ms.Tensor, memory: ms.Tensor) -> ms.Tensor:
        x = self.norm1(target + self.self_attn(target, target))
        x = self.norm2(x + self.multihead_attn(x, memory))
        return self.norm3(x + self.dense2(ops.relu(self.dense1(x))))


def separate_weights(packed: nn.Cell) -> dict[str, np.ndarray]:
    """Weights of a network with `nn.MultiheadAttention`, by the names of one with `SeparateAttention`."""
    found = {}
    for name, parameter in packed.parameters_and_names():
        value = parameter.asnumpy().astype(np.float32)
        prefix, _, last = name.rpartition("in_proj_")
        if not last or last not in ("weight", "bias"):
            found[name.replace("_proj_weight", "_proj.weight")] = value
            continue
        for letter, part in zip("qkv", np.split(value, 3)):
            found[f"{prefix}{letter}_proj.{last}"] = part
    return found


def load(network: nn.Cell, weights: dict[str, np.ndarray]) -> None:
    """Copies the weights into a network with these names."""
    for name, parameter in network.parameters_and_names():
        parameter.set_data(ms.Tensor(weights[name]))
