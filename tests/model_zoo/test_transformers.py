"""Attention against NumPy, causality, and what the optimizers precondition in transformers."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from model_zoo.common.networks import create_network
from model_zoo.common.transformer import SelfAttention

SMALL = {"context": 6, "width": 8, "depth": 2, "heads": 2}


def randomized(network: nn.Cell, rng: np.random.Generator) -> nn.Cell:
    """The initial weights are small and the biases zero: random ones let every part matter."""
    for parameter in network.trainable_params():
        parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape), ms.float32))
    return network.set_train(False)


def attention(x: np.ndarray, weights: dict[str, np.ndarray], heads: int, causal: bool) -> np.ndarray:
    """Self-attention in float64, one head and position at a time."""
    size = x.shape[2] // heads
    q, k, v = (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"] for name in "qkv")
    mixed = np.zeros_like(x)
    for n, head, t in np.ndindex(x.shape[0], heads, x.shape[1]):
        own = slice(head * size, (head + 1) * size)
        seen = slice(0, t + 1 if causal else x.shape[1])
        scores = k[n, seen, own] @ q[n, t, own] / np.sqrt(size)
        shares = np.exp(scores - scores.max())
        mixed[n, t, own] = shares / shares.sum() @ v[n, seen, own]
    return mixed @ weights["out.weight"].T + weights["out.bias"]


@pytest.mark.parametrize("projections", ["separate", "joint"])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_attention_equals_numpy(causal: bool, projections: str, mode: int, rng: np.random.Generator) -> None:
    context = 5 if causal else None
    cell = randomized(SelfAttention(6, 3, projections=projections, context=context), rng)
    weights = {p.name: p.asnumpy().astype(float) for p in cell.trainable_params()}
    if projections == "joint":
        for kind in ("weight", "bias"):
            weights.update(zip((f"{name}.{kind}" for name in "qkv"), np.split(weights[f"qkv.{kind}"], 3)))
    x = rng.standard_normal((2, 5, 6)).astype(np.float32)
    expected = attention(x.astype(float), weights, 3, causal)
    # Sums of six products of numbers up to 10, each rounded by 6e-8 of itself.
    np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_later_token_does_not_change_earlier_logits(
    tied: bool, mode: int, rng: np.random.Generator
) -> None:
    network = randomized(create_network("gpt", tied=tied, **SMALL), rng)
    ids = rng.integers(0, 256, (3, 6))
    before = network(ms.Tensor(ids, ms.int32)).asnumpy()
    assert before.shape == (3, 6, 256)
    changed = ids.copy()
    changed[:, 4] = (ids[:, 4] + 1) % 256
    after = network(ms.Tensor(changed, ms.int32)).asnumpy()
    # The softmax of a masked score is exactly zero.
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.all(np.abs(after[:, 4:] - before[:, 4:]).max(2) > 1e-3)


def test_a_window_may_be_shorter_than_the_context(mode: int, rng: np.random.Generator) -> None:
    network = randomized(create_network("gpt", **{**SMALL, "depth": 1}), rng)
    ids = ms.Tensor(rng.integers(0, 256, (2, 6)), ms.int32)
    short = network(ms.Tensor(ids.asnumpy()[:, :4])).asnumpy()
    # Sums over other shapes may be taken in another order; logits are of order 10.
    np.testing.assert_allclose(short, network(ids).asnumpy()[:, :4], rtol=1e-4, atol=1e-4)


def test_initial_predictions_are_nearly_uniform(rng: np.random.Generator) -> None:
    ids = ms.Tensor(rng.integers(0, 256, (2, 6)), ms.int32)
    for network, inputs in (
        (create_network("gpt", **SMALL), ids),
        (create_network("vit", patch=16, width=8, depth=1, heads=2), ms.ops.ones((2, 3, 32, 32))),
    ):
        # Sums of 8 products of unit numbers with weights of deviation 0.02.
        assert np.abs(network.set_train(False)(inputs).asnumpy()).max() < 5 * 0.02 * np.sqrt(8)


def test_all_but_normalizations_and_positions_is_preconditioned() -> None:
    layers = ["attention.q", "attention.k", "attention.v", "attention.out", "fc1", "fc2"]
    block = [f"blocks.0.{name}" for name in layers]
    optimizer = ms_kfac.KFAC(create_network("gpt", **{**SMALL, "depth": 1}), 0.1)
    assert set(optimizer.layers) == {"token_embedding", "position_embedding", *block, "head"}
    optimizer = ms_kfac.KFAC(create_network("vit", patch=16, width=8, depth=1, heads=2), 0.1)
    assert set(optimizer.layers) == {"patches", *block, "fc"}
    network = create_network("gpt", **{**SMALL, "depth": 1}, projections="joint")
    optimizer = ms_kfac.KFAC(network, 0.1, normalization="unit_wise")
    assert {"blocks.0.attention.qkv", "blocks.0.norm1", "blocks.0.norm2", "norm"} <= set(optimizer.layers)


@pytest.mark.filterwarnings("ignore:.*% of the weights have no curvature")
@pytest.mark.parametrize("kind", ["gpt", "tied gpt", "vit"])
def test_statistics_of_transformers_are_verified(kind: str, mode: int, rng: np.random.Generator) -> None:
    classes = 10 if kind == "vit" else 256
    if kind == "vit":
        network = create_network("vit", patch=16, width=8, depth=1, heads=2)
        inputs = ms.Tensor(rng.standard_normal((4, 3, 32, 32)), ms.float32)
        targets = ms.Tensor(rng.integers(0, classes, 4), ms.int32)
    else:
        network = create_network("gpt", **{**SMALL, "depth": 1}, tied=kind == "tied gpt")
        inputs = targets = ms.Tensor(rng.integers(0, classes, (4, 6)), ms.int32)
    optimizer = ms_kfac.KFAC(network, 0.1, normalization="unit_wise")
    loss = nn.CrossEntropyLoss()

    def mean_loss(inputs: ms.Tensor, targets: ms.Tensor) -> ms.Tensor:
        return loss(network(inputs).reshape((-1, classes)), targets.reshape((-1,)))

    _, gradients = ms.value_and_grad(mean_loss, None, optimizer.parameters)(inputs, targets)
    optimizer(gradients)
    if kind != "vit":
        # Each sample has each position once.
        np.testing.assert_allclose(optimizer.factors("position_embedding")["A"], np.ones(6))
    assert {"token_embedding", "head"}.isdisjoint(optimizer.layers) == (kind != "gpt")
    assert {checked.state for checked in optimizer.verification.checked} == {"verified"}
