"""Multi-head attention: ``nn.MultiheadAttention``, alone and in MindSpore's Transformer cells.

Four dense layers per cell: the projections of query, key and value, whose weights are rows of
``in_proj_weight``, and ``out_proj``. MindSpore computes all of them in one function, which no tap can enter.
A tapped cell computes the same attention with a tap at each projection.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.capture.attach import PlainCopies
from ms_kfac.capture.dense import DenseOperators, linear
from ms_kfac.capture.layer import Layer, overrides_construct
from ms_kfac.capture.layer_kinds import register_layer
from ms_kfac.ops.step.parameter_rows import LayerParameter, ParameterRows

_three_rows = ops.Split(0, 3)
_three_columns = ops.Split(-1, 3)


def _with_columns(mask: Tensor, count: int) -> Tensor:
    # Concat has no kernel for bool on every device.
    wide = ops.cast(mask, ms.int32) if mask.dtype == ms.bool_ else mask
    zeros = ops.zeros((*mask.shape[:-1], count), wide.dtype)
    return ops.cast(ops.concat((wide, zeros), -1), mask.dtype)


def _mask_of(
    attn_mask: Tensor | None, padding: Tensor | None, shape: tuple[int, ...], added: int, dtype: Any
) -> Tensor | None:
    """The mask that is added to the attention scores (N, heads, L, S), combined as MindSpore does."""
    if attn_mask is not None:
        if attn_mask.dtype == ms.uint8:
            attn_mask = ops.cast(attn_mask, ms.bool_)
        if added > 0:
            attn_mask = _with_columns(attn_mask, added)
        if attn_mask.ndim == 2:
            attn_mask = ops.reshape(attn_mask, (1, 1, *attn_mask.shape))
        else:
            attn_mask = ops.reshape(attn_mask, shape)
    if padding is not None:
        if added > 0:
            padding = _with_columns(padding, added)
        padding = ops.reshape(padding, (shape[0], 1, 1, shape[3]))
        if attn_mask is None:
            attn_mask = padding
        elif attn_mask.dtype == ms.bool_:
            attn_mask = ops.logical_or(attn_mask, padding)
        else:
            attn_mask = attn_mask + padding
    if attn_mask is not None and attn_mask.dtype == ms.bool_:
        zeros = ops.zeros(attn_mask.shape, dtype)
        attn_mask = ops.masked_fill(zeros, attn_mask, ops.cast(float("-inf"), dtype))
    return attn_mask


class RoutedAttention(PlainCopies):
    """Computes what ``nn.MultiheadAttention`` computes, with each projection passed through a tap."""

    TAPS = ("q_tap", "k_tap", "v_tap", "out_tap")
    q_tap: Any
    k_tap: Any
    v_tap: Any
    out_tap: Any
    training: bool
    batch_first: bool
    num_heads: int
    dropout: float
    in_proj_weight: Any
    in_proj_bias: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    bias_k: Any
    bias_v: Any
    add_zero_attn: bool
    out_proj: Any
    k_is_v: bool
    q_is_k: bool

    def construct(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
    ) -> tuple[Tensor, ...]:
        batched = query.ndim == 3
        samples_axis = 0 if self.batch_first else 1
        time_axis = 1 - samples_axis
        bias = self.in_proj_bias
        if not batched:
            query = ops.expand_dims(query, samples_axis)
            key = ops.expand_dims(key, samples_axis)
            value = ops.expand_dims(value, samples_axis)
        if self.in_proj_weight is not None and self.q_is_k and self.k_is_v:
            q, k, v = _three_columns(linear(query, self.in_proj_weight, bias))
        else:
            if self.in_proj_weight is not None:
                q_weight, k_weight, v_weight = _three_rows(self.in_proj_weight)
            else:
                q_weight, k_weight, v_weight = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
            q_bias, k_bias, v_bias = (None, None, None) if bias is None else _three_rows(bias)
            q = linear(query, q_weight, q_bias)
            k = linear(key, k_weight, k_bias)
            v = linear(value, v_weight, v_bias)
        q, k, v = self.q_tap(query, q), self.k_tap(key, k), self.v_tap(value, v)

        samples, length, width = q.shape[samples_axis], q.shape[time_axis], q.shape[2]
        added = 0
        if self.bias_k is not None:
            k = ops.concat((k, ops.tile(self.bias_k, _repeats(samples, samples_axis))), time_axis)
            v = ops.concat((v, ops.tile(self.bias_v, _repeats(samples, samples_axis))), time_axis)
            added += 1
        if self.add_zero_attn:
            zeros = ops.zeros_like(ops.split(k, 1, time_axis)[0])
            k, v = ops.concat((k, zeros), time_axis), ops.concat((v, zeros), time_axis)
            added += 1
        source = k.shape[time_axis]
        heads, size = self.num_heads, width // self.num_heads
        to_heads = (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3)
        q = ops.transpose(ops.reshape(q, (*q.shape[:2], heads, size)), to_heads)
        k = ops.transpose(ops.reshape(k, (*k.shape[:2], heads, size)), to_heads)
        v = ops.transpose(ops.reshape(v, (*v.shape[:2], heads, size)), to_heads)
        scale = float(size) ** 0.25
        scores = ops.matmul(q / scale, ops.swapaxes(k, -2, -1) / scale)
        mask = _mask_of(attn_mask, key_padding_mask, (samples, heads, length, source), added, q.dtype)
        if mask is not None:
            scores = scores + mask
        weights = ops.softmax(scores, -1)
        if self.training and 0.0 < self.dropout <= 1.0:
            weights = ops.Dropout(1 - self.dropout)(weights)[0]
        from_heads = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        attended = ops.transpose(ops.matmul(weights, v), from_heads)
        attended = ops.reshape(attended, (*attended.shape[:2], width))
        out = self.out_tap(attended, linear(attended, self.out_proj.weight, self.out_proj.bias))
        if average_attn_weights:
            weights = ops.reduce_sum(weights, 1) / heads
        if not batched:
            out, weights = ops.squeeze(out, samples_axis), ops.squeeze(weights, 0)
        if need_weights:
            return out, weights
        return (out,)


def _repeats(samples: int, axis: int) -> tuple[int, int, int]:
    return (samples, 1, 1) if axis == 0 else (1, samples, 1)


@register_layer(nn.MultiheadAttention)
def describe_attention(name: str, cell: Any) -> tuple[Layer, ...] | str:
    """Describe an ``nn.MultiheadAttention``.

    Args:
        name: the cell's name in the network.
        cell: an ``nn.MultiheadAttention``.

    Returns:
        Four dense layers, or the reason why they can't be preconditioned: an overridden ``construct``.
    """
    if overrides_construct(cell, nn.MultiheadAttention):
        return "it overrides the construct of MultiheadAttention"
    width = cell.embed_dim
    layers = []
    for index, letter in enumerate("qkv"):
        begin, end = index * width, (index + 1) * width
        packed = cell.in_proj_weight is not None
        weight: LayerParameter = (
            ParameterRows(cell.in_proj_weight, begin, end)
            if packed
            else getattr(cell, f"{letter}_proj_weight")
        )
        bias = None if cell.in_proj_bias is None else ParameterRows(cell.in_proj_bias, begin, end)
        layers.append(_layer(f"{name}.{letter}_proj", cell, weight, bias, f"{letter}_tap"))
    out = cell.out_proj
    layers.append(_layer(f"{name}.out_proj", cell, out.weight, out.bias, "out_tap"))
    return tuple(layers)


def _layer(name: str, cell: Any, weight: Any, bias: Any, tap_name: str) -> Layer:
    return Layer(
        name=name,
        kind="dense",
        cell=cell,
        weight=weight,
        bias=bias,
        operators=DenseOperators(bias=bias is not None),
        sample_axis=0 if cell.batch_first else 1,
        router=RoutedAttention,
        tap_name=tap_name,
    )


def time_first_cells(network: nn.Cell) -> set[int]:
    """Find the cells whose inputs are (T, N, d), because a Transformer cell of MindSpore contains them.

    Args:
        network: the network.

    Returns:
        The ids of the cells.
    """
    found: set[int] = set()
    for _, cell in network.cells_and_names():
        stack = isinstance(cell, (nn.TransformerEncoder, nn.TransformerDecoder)) and len(cell.layers) > 0
        layer: Any = cell.layers[0] if stack else cell
        transformer = isinstance(layer, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer))
        if transformer and not layer.batch_first:
            found |= {id(inner) for _, inner in cell.cells_and_names()}
    return found
