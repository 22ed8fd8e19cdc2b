"""`nn.MultiheadAttention` and Transformer cells: the same outputs, and the updates of separate layers."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.oracle.factors import shared_factors
from tests.oracle.linear_maps import Maps, sides
from tests.support.attention import (
    HEADS,
    WIDTH,
    SeparateAttention,
    SeparateDecoder,
    load,
    separate_weights,
)
from tests.support.bank import backward, linear_loss, randomise, tensor

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


def attention_losses(x: np.ndarray, memory: np.ndarray, c: np.ndarray) -> Any:
    """Losses Σ y ⊙ c of each sample, y = W_out concat_h(softmax(q kᵀ / √d) v) (Vaswani et al. 2017, 3.2)."""

    def losses(maps: Maps) -> np.ndarray:
        q, k, v = maps("q_proj", x), maps("k_proj", memory), maps("v_proj", memory)
        size = WIDTH // HEADS
        heads = []
        for h in range(HEADS):
            part = slice(h * size, (h + 1) * size)
            exponentials = np.exp(q[..., part] @ np.swapaxes(k[..., part], 1, 2) / np.sqrt(size))
            weights = exponentials / exponentials.sum(-1, keepdims=True)
            heads.append(weights @ v[..., part])
        return (maps("out_proj", np.concatenate(heads, -1)) * c).sum((1, 2))

    return losses


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "has_bias": False}], ids=["bias", "no bias"])
def test_factors_equal_the_definition(
    mode: int, sharing: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, **options)
    randomise(attention, rng)
    weights = {name: value.astype(np.float64) for name, value in separate_weights(attention).items()}
    bias = "q_proj.bias" in weights
    assert bias == options.get("has_bias", True)
    arrays = [np.swapaxes(sequence(rng, length), 0, 1) for length in (LENGTH, SOURCE, LENGTH)]
    inputs = arrays if attention.batch_first else [np.swapaxes(array, 0, 1) for array in arrays]
    optimizer = ms_kfac.KFAC(attention, 0.1, sharing=sharing)
    loss = linear_loss(attention, inputs[2:], 1 / SAMPLES)
    optimizer(backward(loss, optimizer.parameters, inputs[0], inputs[1], inputs[1]))
    assert optimizer.summary(every_layer=True).count("verified") == 5
    for name, (a, g) in sides(attention_losses(*arrays), weights).items():
        found = optimizer.factors(f"MultiheadAttention.{name}")
        for letter, expected in zip("AG", shared_factors(a, g, bias, sharing)):
            # Sums of at most 15 float32 terms, behind some products of 8. G of keys is small: their gradients
            # sum to zero.
            tolerance = 1e-5 * max(np.abs(expected).max(), 1.0)
            np.testing.assert_allclose(
                found[letter], expected, rtol=1e-4, atol=tolerance, err_msg=f"{name} {letter}"
            )


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


@pytest.mark.parametrize("batch_first", [False, True])
def test_an_encoder_trains_with_dropout(mode: int, batch_first: bool, rng: np.random.Generator) -> None:
    """A stack of two layers on (T, N, d), a single layer with its normalization on (N, T, d)."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.1, batch_first=batch_first)
    encoder = layer if batch_first else nn.TransformerEncoder(layer, 2)
    randomise(encoder, rng)
    encoder.set_train(True)
    x = sequence(rng, LENGTH)
    if batch_first:
        x = np.swapaxes(x, 0, 1)
    start = {p.name: p.asnumpy().copy() for p in encoder.trainable_params()}
    options: Any = {"damping": 0.1, "factor_interval": 1, "inverse_interval": 1}
    if batch_first:
        options["normalization"] = "unit_wise"
    optimizer = ms_kfac.KFAC(encoder, 0.1, **options)
    assert len(optimizer.layers) == (8 if batch_first else 2 * 6)
    for _ in range(2):
        step(encoder, optimizer, [x], 0 if batch_first else 1)
    assert optimizer.summary(every_layer=True).count("verified") == 1 + len(optimizer.layers)
    for name in optimizer.layers:
        if "norm" not in name:
            # The bias's own coordinate: T locations in each of N samples.
            assert optimizer.factors(name)["A"][-1, -1] == pytest.approx(LENGTH, rel=1e-5), name
    rows = x.reshape(-1, WIDTH)
    A = optimizer.factors("self_attn.q_proj" if batch_first else "layers.0.self_attn.q_proj")["A"]
    # The input is the same in both steps, and no dropout comes before it. Sums of 15 float32 terms.
    np.testing.assert_allclose(A[:-1, :-1], rows.T @ rows / SAMPLES, rtol=1e-4, atol=1e-5)
    for parameter in encoder.trainable_params():
        moved = np.abs(parameter.asnumpy() - start[parameter.name]).max()
        assert moved > 1e-4, parameter.name


def test_dropout_is_on_the_attention_weights(mode: int, rng: np.random.Generator) -> None:
    """In training alone; what remains is divided by the probability to remain."""
    attention = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.25)
    randomise(attention, rng)
    x, memory = tensor(sequence(rng, LENGTH)), tensor(sequence(rng, SOURCE))
    attention.set_train(False)
    y, weights = (a.asnumpy() for a in attention(x, memory, memory, average_attn_weights=False))
    ms_kfac.KFAC(attention, 0.1)
    again, same = (a.asnumpy() for a in attention(x, memory, memory, average_attn_weights=False))
    # Products of 8 terms in another order.
    np.testing.assert_allclose(same, weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-5)
    attention.set_train(True)
    changed, dropped = (a.asnumpy() for a in attention(x, memory, memory, average_attn_weights=False))
    left = dropped != 0
    # 120 weights, with a standard deviation of 0.04 of the rate.
    assert 0.5 < left.mean() < 0.95
    np.testing.assert_allclose(dropped[left], weights[left] / 0.75, rtol=1e-5)
    assert np.abs(changed - y).max() > 1e-3


@pytest.mark.parametrize(
    ("mode", "method", "bias"),
    [
        (ms.GRAPH_MODE, ms_kfac.SKFAC, True),
        (ms.PYNATIVE_MODE, ms_kfac.SKFAC, False),
        (ms.PYNATIVE_MODE, ms_kfac.EKFAC, True),
    ],
    indirect=["mode"],
)
def test_other_blocks_serve_the_projections(
    mode: int, method: Any, bias: bool, rng: np.random.Generator
) -> None:
    packed = nn.MultiheadAttention(WIDTH, HEADS, kdim=6, vdim=6, has_bias=bias)
    separate = SeparateAttention(6, bias=bias)
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
