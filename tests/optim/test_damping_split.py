"""How each Kronecker method splits the damping between a layer's two factors."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.ops.refresh import layer_refresh
from tests.support.bank import tensor

LAMBDA = 0.3
METHODS = [ms_kfac.KFAC, ms_kfac.SPNGD, ms_kfac.THOR, ms_kfac.SMKFAC]


class Words(nn.Cell):
    """An embedding table, a grouped convolution and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.convolution = nn.Conv2d(4, 6, (1, 3), pad_mode="valid", group=2, has_bias=True)
        self.dense = nn.Dense(12, 5)

    def construct(self, ids: ms.Tensor) -> ms.Tensor:
        rows = self.table(ids).transpose(0, 2, 1).expand_dims(2)
        return self.dense(self.convolution(rows).reshape(len(ids), -1))


def trained(method: Any, rng: np.random.Generator, **options: Any) -> nn.Optimizer:
    """The optimizer after one step."""
    net = Words()
    optimizer = method(net, 0.1, damping=LAMBDA, **options)
    ids, c = ms.Tensor(rng.integers(0, 7, (6, 4)), ms.int32), tensor(rng.standard_normal((6, 5)))
    gradients = ms.grad(lambda: (c * net(ids)).sum(-1).mean(), None, optimizer.parameters)()
    optimizer(gradients)
    return optimizer


def preconditioned(matrix: np.ndarray, A: np.ndarray, G: np.ndarray, split: str) -> np.ndarray:
    """(G + c_G I)^-1 matrix (A + c_A I)^-1 in float64, of one pair of factors."""
    A, G = (np.diag(F) if F.ndim == 1 else F for F in (A.astype(np.float64), G.astype(np.float64)))
    pi = np.sqrt(np.trace(A) / len(A) / np.trace(G) * len(G)) if split == "pi" else 1.0
    root = np.sqrt(LAMBDA)
    left = np.linalg.solve(G + root / pi * np.eye(len(G)), matrix)
    return np.linalg.solve(A + root * pi * np.eye(len(A)), left.T).T


@pytest.mark.parametrize("split", ["pi", "none"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
def test_every_block_of_a_method_follows_the_option(
    native: bool, method: Any, split: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(layer_refresh, "is_native", lambda operator: False)
    optimizer = trained(method, rng, damping_split=split)
    for name, block in zip(("table", "convolution", "dense"), optimizer.blocks):
        A, G = (optimizer.factors(name)[letter] for letter in "AG")
        if name == "table":
            # Its weight has a row per id: transposed.
            matrix = rng.standard_normal((len(A), len(G)))
            expected = preconditioned(matrix.T, A, G, split).T
        elif A.ndim == 3:
            matrix = rng.standard_normal((len(A), G.shape[-1], A.shape[-1]))
            expected = np.stack([preconditioned(*group, split) for group in zip(matrix, A, G)])
        else:
            matrix = rng.standard_normal((len(G), len(A)))
            expected = preconditioned(matrix, A, G, split)
        found = block.precondition(tensor(matrix)).asnumpy()
        # Condition numbers below 100: that many times float32's 6e-8.
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max(), err_msg=name)


def test_skfac_leaves_the_default_to_embedding_tables(rng: np.random.Generator) -> None:
    """ "none" is SKFAC's default for its own block; a table's A has a trace of 1, spread over its rows."""
    optimizer = trained(ms_kfac.SKFAC, rng)
    assert [block.splits for block in optimizer.blocks if hasattr(block, "splits")] == [True]


@pytest.mark.parametrize("method", [*METHODS, ms_kfac.SKFAC])
def test_unknown_values_are_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="damping_split must be one of 'pi', 'none', got 'even'"):
        method(Words(), 0.1, damping_split="even")


@pytest.mark.parametrize("method", [ms_kfac.EKFAC, ms_kfac.TKFAC])
def test_methods_that_do_not_split_refuse_the_option(method: Any) -> None:
    with pytest.raises(TypeError, match=r"damping_split is not accepted: .*KFAC .*, got 'none'"):
        method(Words(), 0.1, damping_split="none")
