"""A layer that one backward pass calls several times: the factors of every block, against float64.

The R calls are further locations of the same N samples, as a dense layer's on (N, R, d) are. Cross terms
between calls are not known: what needs the gradient of a whole sample takes the calls as independent.
"""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from ms_kfac.curvature import DiagonalBlock
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, PERIOD
from ms_kfac.statistics import commit as module
from ms_kfac.statistics.commit import CommitStatistics
from tests.oracle.factors import shared_factors
from tests.oracle.tkfac import dense_rows, trace_restricted
from tests.oracle.unit_wise import normalize, unit_wise_fisher
from tests.support.bank import tensor
from tests.support.forms import native_and_fallback

N, R, T, INPUTS, OUTPUTS, ROWS = 5, 3, 2, 4, 3, 7
# Wider than a batch has samples.
WIDE = 9
Arrays = dict[str, np.ndarray]
Oracle = Callable[[np.ndarray, np.ndarray], Arrays]
both_forms = native_and_fallback("commit_statistics")


def kronecker(a: np.ndarray, g: np.ndarray) -> Arrays:
    A, G = shared_factors(a, g, bias=True)
    return {"A": A, "G": G}


def newest_rows(a: np.ndarray, g: np.ndarray) -> Arrays:
    """The rows of A that have room stand for those of all calls."""
    last = shared_factors(a[:, -1:], g[:, -1:], bias=True)[0]
    return {"A": R * last, "G": kronecker(a, g)["G"]}


def diagonals(a: np.ndarray, g: np.ndarray) -> Arrays:
    A, G = shared_factors(a, g, bias=True)
    return {"A": A, "G": G, "A_diagonal": np.diag(A), "G_diagonal": np.diag(G)}


def traces(a: np.ndarray, g: np.ndarray) -> Arrays:
    block = trace_restricted(dense_rows(a, g, True))
    return {"Phi": block.Phi, "Psi": block.Psi, "delta": np.array(block.delta)}


def squares(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Of the gradients of each call, summed over calls, averaged over samples."""
    rows, outputs = dense_rows(a, g, True)
    return np.einsum("nro,nri->oi", outputs**2, rows**2) / len(rows)


def eigenbasis(a: np.ndarray, g: np.ndarray) -> Arrays:
    # Before the first refresh.
    bases = {"Q_A": np.eye(INPUTS + 1), "Q_G": np.eye(OUTPUTS)}
    return {**kronecker(a, g), "s": squares(a, g), **bases}


def diagonal(a: np.ndarray, g: np.ndarray) -> Arrays:
    return {"s": squares(a, g)}


def reduced(a: np.ndarray, g: np.ndarray) -> Arrays:
    """Calls of T locations each: the mean and the sum within a call, then as locations."""
    return kronecker(a.mean(axis=2), g.sum(axis=2))


def embedding(ids: np.ndarray, g: np.ndarray) -> Arrays:
    A, G = shared_factors(np.eye(ROWS)[ids], g, bias=False)
    return {"A": np.diag(A), "G": G}


def normalization(x: np.ndarray, g: np.ndarray) -> Arrays:
    x_hat = normalize(x, (-1,), 1e-7)
    return {"F": sum(unit_wise_fisher(x_hat[:, r], g[:, r]) for r in range(R))}


# The method and its options, the shape of one call's input without its last axis, and the oracle.
CASES: dict[str, tuple[Any, dict[str, Any], Oracle]] = {
    "KFAC": (ms_kfac.KFAC, {}, kronecker),
    "SPNGD": (ms_kfac.SPNGD, {}, kronecker),
    "THOR": (ms_kfac.THOR, {}, kronecker),
    "SKFAC": (ms_kfac.SKFAC, {}, kronecker),
    "SKFAC, rows": (ms_kfac.SKFAC, {}, newest_rows),
    "SMKFAC": (ms_kfac.SMKFAC, {}, diagonals),
    "TKFAC": (ms_kfac.TKFAC, {}, traces),
    "TKFAC, roots": (ms_kfac.TKFAC, {"ema": "paper"}, traces),
    "EKFAC": (ms_kfac.EKFAC, {}, eigenbasis),
    "DiagonalBlock": (ms_kfac.KFAC, {"blocks": {"dense": DiagonalBlock}}, diagonal),
    "reduce": (ms_kfac.KFAC, {"sharing": "reduce"}, reduced),
    "embedding": (ms_kfac.KFAC, {}, embedding),
    "normalization": (ms_kfac.KFAC, {"normalization": "unit_wise"}, normalization),
}


def block_of(name: str) -> Any:
    method, options, _ = CASES[name]
    layers = {"embedding": nn.Embedding(ROWS, OUTPUTS), "normalization": nn.LayerNorm((OUTPUTS,))}
    net = nn.SequentialCell(layers.get(name, nn.Dense(WIDE if name == "SKFAC, rows" else INPUTS, OUTPUTS)))
    return method(net, 0.1, **options).blocks[0]


def draw(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and output gradients of all calls, (N, R, ..., d)."""
    locations = (T,) if name == "reduce" else ()
    g = rng.standard_normal((N, R, *locations, OUTPUTS)).astype(np.float32)
    if name == "embedding":
        return rng.integers(0, ROWS, (N, R)).astype(np.int32), g
    width = {"normalization": OUTPUTS, "SKFAC, rows": WIDE}.get(name, INPUTS)
    return rng.standard_normal((N, R, *locations, width)).astype(np.float32), g


@both_forms
@pytest.mark.parametrize("name", CASES)
def test_calls_are_locations(
    name: str, native: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, (x, g) = block_of(name), draw(name, rng)
    monkeypatch.setattr(module, "is_native", lambda kernel: native)
    commit = CommitStatistics([block], 0.0, lambda told: np.array([[1, R, R, 0]]), name="test")
    record = block.record.asnumpy().copy()
    record[PERIOD] = R
    ops.assign(block.record, tensor(record))
    gate = ms.Parameter(ms.Tensor(EVERYTHING, ms.int32), name="gate", requires_grad=False)
    for call in range(R):
        dout = tensor(np.ascontiguousarray(g[:, call]) / N)
        block.operator.as_graph(tensor(np.ascontiguousarray(x[:, call])), dout, gate, *block.staged)
    commit(ms.Tensor(1, ms.int32), tensor(np.ones(2)), tensor(np.zeros((1, 3))))
    assert commit.calls.asnumpy().tolist() == [R]
    expected, found = CASES[name][2](x, g), block.factors()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # Sums of at most 15 products of float32.
        np.testing.assert_allclose(found[key], value, rtol=0, atol=3e-6 * np.abs(value).max(), err_msg=key)
