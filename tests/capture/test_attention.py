"""`nn.MultiheadAttention` and Transformer cells: the same outputs, and the updates of separate layers."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.attention import (
    HEADS,
    WIDTH,
    SeparateAttention,
    SeparateDecoder,
    load,
    separate_weights,
)
from tests.support.bank import randomise, tensor

SAMPLES, LENGTH, SOURCE = 3, 5, 4


class Variants(nn.Cell):
    """Every option of the attention, each with masks of its own."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.packed = nn.MultiheadAttention(WIDTH, HEADS)
        self.first = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, has_bias=False)
        self.wide = nn.MultiheadAttention(WIDTH, HEADS, kdim=6, vdim=7)
        self.added = nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True, add_zero_attn=True)
        randomise(self, rng)
        padding = np.zeros((SAMPLES, SOURCE), bool)
        padding[:, -1] = True
        self.padding = ms.Tensor(padding)
        self.numbers = tensor(rng.standard_normal((LENGTH, SOURCE)))
        self.flags = ms.Tensor(np.triu(np.ones((LENGTH, SOURCE), bool), 2))
        self.by_head = tensor(rng.standard_normal((SAMPLES * HEADS, LENGTH, SOURCE)))

    def construct(
        self, x: ms.Tensor, y: ms.Tensor, keys: ms.Tensor, values: ms.Tensor
    ) -> tuple[ms.Tensor, ...]:
        first, second = ops.swapaxes(x, 0, 1), ops.swapaxes(y, 0, 1)
        outputs = self.packed(x, x, x)
        outputs += self.packed(x, y, y, key_padding_mask=self.padding, attn_mask=self.flags)
        outputs += self.packed(x, y, y, attn_mask=self.by_head, average_attn_weights=False)
        outputs += self.packed(x[:, 0], y[:, 0], y[:, 0], attn_mask=self.numbers)
        outputs += self.first(first, second, second, key_padding_mask=self.padding, need_weights=False)
        outputs += self.wide(x, keys, values, attn_mask=self.numbers)
        outputs += self.added(x, y, y, key_padding_mask=self.padding, attn_mask=self.flags)
        return outputs


def sequence(rng: np.random.Generator, length: int, width: int = WIDTH) -> np.ndarray:
    """(T, N, d)."""
    return rng.standard_normal((length, SAMPLES, width)).astype(np.float32)


def test_outputs_stay(mode: int, rng: np.random.Generator) -> None:
    net = Variants(rng)
    inputs = [
        tensor(sequence(rng, length, width))
        for length, width in ((LENGTH, 8), (SOURCE, 8), (SOURCE, 6), (SOURCE, 7))
    ]
    plain = [output.asnumpy() for output in net(*inputs)]
    optimizer = ms_kfac.KFAC(net, 0.1)
    assert len(optimizer.layers) == 16
    for found, expected in zip(net(*inputs), plain):
        # Products of 8 terms in another order.
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5, atol=1e-5)
    optimizer.detach()
    for found, expected in zip(net(*inputs), plain):
        np.testing.assert_array_equal(found.asnumpy(), expected)


def step(net: nn.Cell, optimizer: Any, inputs: list[np.ndarray], samples_axis: int) -> None:
    """One step on the squared error, averaged or summed over samples as the optimizer expects."""

    def forward(*tensors: ms.Tensor) -> ms.Tensor:
        y = net(*tensors)
        y = y[0] if isinstance(y, tuple) else y
        loss = ops.square(y - 0.3).sum()
        return loss / y.shape[samples_axis] if optimizer.mean_reduction else loss

    gradient = ms.value_and_grad(forward, None, optimizer.parameters)
    optimizer(gradient(*(tensor(x) for x in inputs))[1])


@pytest.mark.parametrize(
    ("mode", "sharing"), [(ms.GRAPH_MODE, "expand"), (ms.PYNATIVE_MODE, "reduce")], indirect=["mode"]
)
def test_a_decoder_trains_like_separate_layers(mode: int, sharing: str, rng: np.random.Generator) -> None:
    """Self and cross attention with sources of another length, on (T, N, d), against (N, T, d)."""
    packed = nn.TransformerDecoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0)
    separate = SeparateDecoder()
    randomise(packed, rng)
    start = separate_weights(packed)
    load(separate, start)
    batches = [[sequence(rng, LENGTH), sequence(rng, SOURCE)] for _ in range(2)]
    options: Any = {
        "damping": 0.1,
        "factor_interval": 1,
        "inverse_interval": 1,
        "sharing": sharing,
        "normalization": "unit_wise",
    }
    optimizers = [ms_kfac.KFAC(net, 0.1, **options) for net in (packed, separate)]
    for batch in batches:
        step(packed, optimizers[0], batch, 1)
        step(separate, optimizers[1], [np.swapaxes(x, 0, 1) for x in batch], 0)
    assert set(optimizers[0].layers) == set(optimizers[1].layers)
    assert optimizers[0].summary(every_layer=True).count("verified") == 14
    for name in optimizers[1].layers:
        for factor, expected in optimizers[1].factors(name).items():
            found = optimizers[0].factors(name)[factor]
            # Sums of at most 15 float32 terms, after a step of each. The gradients of keys sum to zero.
            tolerance = max(1e-3 * np.abs(expected).max(), 1e-8)
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=tolerance, err_msg=f"{name} {factor}")
    trained = separate_weights(packed)
    for name, parameter in separate.parameters_and_names():
        moved = np.abs(parameter.asnumpy() - start[name]).max()
        # The gradient of a key's bias is zero but for rounding.
        assert moved > 1e-5 or name.endswith("k_proj.bias")
        np.testing.assert_allclose(trained[name], parameter.asnumpy(), rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("mode", "method"), [(ms.GRAPH_MODE, ms_kfac.SKFAC), (ms.PYNATIVE_MODE, ms_kfac.EKFAC)], indirect=["mode"]
)
def test_other_blocks_serve_the_projections(mode: int, method: Any, rng: np.random.Generator) -> None:
    packed = nn.MultiheadAttention(WIDTH, HEADS, kdim=6, vdim=6)
    separate = SeparateAttention(6)
    randomise(packed, rng)
    load(separate, separate_weights(packed))
    # With a summed loss, samples are counted at q_proj.
    options: Any = {"damping": 0.1, "factor_interval": 1, "inverse_interval": 1, "reduction": "sum"}
    optimizers = [method(net, 0.1, **options) for net in (packed, separate)]
    start = separate_weights(packed)
    for _ in range(2):
        x, memory = sequence(rng, LENGTH), sequence(rng, SOURCE, 6)
        step(packed, optimizers[0], [x, memory, memory], 1)
        step(separate, optimizers[1], [np.swapaxes(x, 0, 1), np.swapaxes(memory, 0, 1)], 0)
    trained = separate_weights(packed)
    assert np.abs(trained["q_proj.weight"] - start["q_proj.weight"]).max() > 1e-4
    for name, parameter in separate.parameters_and_names():
        np.testing.assert_allclose(trained[name], parameter.asnumpy(), rtol=0, atol=2e-5, err_msg=name)
