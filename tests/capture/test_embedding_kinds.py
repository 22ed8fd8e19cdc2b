"""`nn.EmbeddingLookup` and `mint.nn.Embedding`: factors, and the options that keep a table first-order."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import mint, nn, ops

import ms_kfac
from ms_kfac.capture.layer_kinds import describe_layer
from tests.oracle.factors import dense_factors
from tests.support.bank import Bank, backward, linear_loss, randomise

VOCABULARY, WIDTH, PADDING = 6, 3, 2


class Gather(nn.Cell):
    """Computes what `mint.nn.Embedding` computes, which has no CPU kernel in MindSpore 2.10."""

    def __init__(self, table: ms.Parameter, padding: int) -> None:
        super().__init__(auto_prefix=False)
        self.table, self.padding = table, padding

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        rows = ops.gather(self.table, ids, 0)
        kept = ops.expand_dims(ops.cast(ids != self.padding, ms.float32), -1)
        # The padding row has a value, but no gradient.
        return rows * kept + ops.stop_gradient(rows) * (1 - kept)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_factors(mode: int, sharing: str, rng: np.random.Generator) -> None:
    tables = [
        nn.EmbeddingLookup(VOCABULARY, WIDTH, target="DEVICE", sparse=False),
        mint.nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING - VOCABULARY),
        mint.nn.Embedding(VOCABULARY, WIDTH),
    ]
    net = Bank(tables)
    randomise(net, rng)
    optimizer = ms_kfac.KFAC(net, 0.1, sharing=sharing)
    for table, padding in zip(tables[1:], (PADDING, -1)):
        table.__dict__["untapped_construct"] = Gather(table.weight, padding)
    ids = [rng.integers(0, VOCABULARY, (5, 4)).astype(dtype) for dtype in (np.int64, np.int32, np.int32)]
    ids[1][0] = PADDING
    c = [rng.standard_normal((5, 4, WIDTH)).astype(np.float32) for _ in tables]
    optimizer(backward(linear_loss(net, c), optimizer.parameters, *ids))
    assert optimizer.summary().count("verified") == 1 + len(tables)
    for i in range(len(tables)):
        one_hot, g = np.eye(VOCABULARY)[ids[i]], c[i].copy()
        if i == 1:
            one_hot[..., PADDING] = 0
            g[ids[i] == PADDING] = 0
        A, G = dense_factors(one_hot, g, False, sharing)
        found = optimizer.factors(f"layers.{i}")
        np.testing.assert_allclose(found["A"], np.diag(A), rtol=1e-6, err_msg=str(i))
        np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-6, err_msg=str(i))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (nn.EmbeddingLookup(4, 3), "sparse"),
        (nn.EmbeddingLookup(4, 3, target="DEVICE", sparse=False, max_norm=1.0), "max_norm"),
        (mint.nn.Embedding(4, 3, max_norm=1.0), "max_norm"),
        (mint.nn.Embedding(4, 3, scale_grad_by_freq=True), "scale_grad_by_freq"),
    ],
)
def test_what_stays_first_order_says_why(table: nn.Cell, reason: str) -> None:
    described = describe_layer("table", table)
    assert isinstance(described, str)
    assert reason in described
