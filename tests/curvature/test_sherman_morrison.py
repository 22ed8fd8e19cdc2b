"""Rank-one updates of the inverses against dense inverses in float64, and what they must not compute."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.sherman_morrison import ShermanMorrisonBlock
from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.refresh import layer_refresh
from ms_kfac.ops.statistics import layer_statistics as operators
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from tests.oracle.sherman_morrison import ReferenceLayer
from tests.support.bank import tensor
from tests.support.layer_bank import CASES, Case, build, gradient_function, layers_of, matrices
from tests.support.methods import fixed_intervals
from tests.support.staging import Committed

SAMPLES = 10
FULL = 2
FULL_STEPS = {
    ("none", None): (True, True, *(False,) * 5),
    ("trace", None): (True, True, *(False,) * 5),
    ("trace", 2): (True, True, False, False, True, False, False, True, False),
}


@pytest.mark.parametrize(("rescale", "interval"), FULL_STEPS, ids=["printed", "trace", "trace, repeated"])
def test_refreshes_equal_dense_inverses(
    mode: int, rescale: str, interval: int | None, rng: np.random.Generator
) -> None:
    """k full refreshes and the ones after, with two batches of statistics to a refresh."""
    damping, weights, full_steps = 0.05, (0.15, 0.3), FULL_STEPS[rescale, interval]
    net = build(CASES, rng)
    optimizer = ms_kfac.SMKFAC(
        net,
        0.1,
        full_refreshes=FULL,
        alpha=weights[0],
        beta=weights[1],
        rescale=rescale,
        full_refresh_interval=interval,
        damping=damping,
        factor_decay=0.6,
        **fixed_intervals(1, 2),
    )
    references = [
        [ReferenceLayer(full_steps, damping, weights, 0.6, rescale == "trace") for _ in range(case.groups)]
        for case in CASES
    ]
    gradient = gradient_function(net, optimizer.parameters)
    for step in range(2 * (len(full_steps) - 1)):
        batch = [case.batch(SAMPLES, rng) for case in CASES]
        gradients = gradient(batch)
        optimizer(gradients)
        found = optimizer.precondition(gradients)
        for i, (case, groups) in enumerate(zip(CASES, references)):
            name = f"layers.{i}"
            factors = optimizer.factors(name)
            triples = zip(groups, case.factors(*batch[i]), matrices(optimizer, gradients, name, len(groups)))
            results = matrices(optimizer, found, name, len(groups))
            for index, (reference, pair, dW) in enumerate(triples):
                reference.add(pair)
                if step % 2 == 0:
                    reference.refresh()
                U = reference.precondition(dW)
                # float32 ε times the condition of the damped factors, with room for the updates in between.
                tolerance = max(2e-5, 8 * 1.2e-7 * reference.condition())
                assert tolerance < 0.02, "the case is too ill-conditioned to test anything"
                np.testing.assert_allclose(
                    results[index], U, rtol=0, atol=tolerance * np.abs(U).max(), err_msg=f"{name} at {step}"
                )
                for letter, average in zip(("A_diagonal", "G_diagonal"), reference.tracked):
                    diagonal = factors[letter].reshape(len(groups), -1)[index]
                    np.testing.assert_allclose(diagonal, np.diag(average.value), rtol=2e-5, err_msg=letter)
                for letter, average in zip("AG", reference.full):
                    matrix = factors[letter].reshape(len(groups), *average_shape(factors[letter]))[index]
                    expected = average.value if average.weight else np.zeros(())
                    np.testing.assert_allclose(matrix, expected + 0 * matrix, rtol=2e-5, atol=2e-5)


def average_shape(factor: np.ndarray) -> tuple[int, int]:
    return factor.shape[-2], factor.shape[-1]


class Announced(nn.Cell):
    """Says on standard output that an operator runs, then runs it."""

    def __init__(self, operator: nn.Cell, text: str) -> None:
        super().__init__(auto_prefix=False)
        self.operator = operator
        self.text = text
        self.print = ops.Print()

    def construct(self, *inputs: ms.Tensor) -> ms.Tensor:
        self.print(self.text)
        return self.operator(*inputs)


def test_nothing_is_inverted_or_multiplied_out_any_more(
    mode: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    """Exactly k Cholesky decompositions a factor and k covariances; counted where they are computed."""
    cases = [Case(d_in=7, d_out=2)]
    # The native forms do not pass by the operators that are counted here. Layers of one geometry share an
    # operator, which another test may have made.
    for module in (layer_refresh, operators):
        monkeypatch.setattr(module, "is_native", lambda operator: False)
    layer_statistics.cache_clear()
    net = build(cases, rng)
    optimizer = ms_kfac.SMKFAC(net, 0.1, full_refreshes=3, factor_interval=1, inverse_interval=1)
    block = optimizer.blocks[0]
    refresh = block.layer_refresh
    assert isinstance(refresh.damped_inverse, DampedInverse)
    refresh.damped_inverse = Announced(refresh.damped_inverse, "an inverse is computed")
    moment = block.operator.second_moment
    block.operator.second_moment = Announced(moment, "a covariance is formed")
    gradient = gradient_function(net, optimizer.parameters)
    try:
        counts = []
        for _ in range(6):
            optimizer(gradient([case.batch(SAMPLES, rng) for case in cases]))
            text = capfd.readouterr().out
            counts.append((text.count("a covariance is formed"), text.count("an inverse is computed")))
    finally:
        block.operator.second_moment = moment
        layer_statistics.cache_clear()
    assert counts == [(2, 2)] * 3 + [(0, 0)] * 3


def block_of(case: Case, rng: np.random.Generator, **options: object) -> ShermanMorrisonBlock:
    """A block on its own, outside any optimizer."""
    arguments: dict[str, object] = {
        "full_refreshes": 1,
        "weights": (0.2, 0.3),
        "rescale": False,
        "interval": None,
    }
    arguments.update(options)
    statistics = StatisticsOptions(sharing="expand", mean_reduction=False, gradient_scale=1.0)
    layer = layers_of(build([case], rng))[0]
    return ShermanMorrisonBlock(layer, prefix="alone", options=statistics, **arguments)


@pytest.mark.parametrize("rescale", [False, True])
def test_a_layer_without_statistics_keeps_its_k_refreshes(rescale: bool, rng: np.random.Generator) -> None:
    block = block_of(Case(), rng, full_refreshes=2, rescale=rescale, interval=3 if rescale else None)
    committed = Committed(block)
    reference = ReferenceLayer((True, True, False, False), 0.1, (0.2, 0.3), rescale=rescale)
    for _ in range(4):
        block.refresh(ms.Tensor(0.1))
        np.testing.assert_array_equal(block.A_inverse.asnumpy(), np.eye(5))
        np.testing.assert_array_equal(block.G_inverse.asnumpy(), np.eye(3))
    batch = Case().batch(SAMPLES, rng)
    committed.add(batch)
    reference.add(Case().factors(*batch)[0])
    for _ in range(3):
        block.refresh(ms.Tensor(0.1))
        reference.refresh()
    # Condition below 1e3.
    expected = np.linalg.inv(reference.damped[0])
    np.testing.assert_allclose(block.A_inverse.asnumpy(), expected, rtol=0, atol=2e-4 * expected.max())


def test_a_full_refresh_waits_for_full_statistics(rng: np.random.Generator) -> None:
    """Statistics rarer than inverses: the sums cleared for a full refresh are empty when it is due."""
    block = block_of(Case(), rng, interval=1)
    committed = Committed(block)
    first, second = (Case().batch(SAMPLES, rng) for _ in range(2))
    committed.add(first)
    for _ in range(2):
        block.refresh(ms.Tensor(0.1))
    assert float(block.full.asnumpy()) == 1.0
    before = block.A_inverse.asnumpy().copy()
    block.refresh(ms.Tensor(0.1))
    diagonal = np.diag(Case().factors(*first)[0][0])
    u = np.sqrt(diagonal)
    updated = np.linalg.inv(np.linalg.inv(before.astype(np.float64)) + 0.2 * np.outer(u, u))
    np.testing.assert_allclose(block.A_inverse.asnumpy(), updated, rtol=0, atol=2e-4 * updated.max())
    committed.add(second)
    block.refresh(ms.Tensor(0.1))
    # The second batch alone: nothing of the sums before.
    reference = ReferenceLayer((True, False), 0.1)
    reference.add(Case().factors(*second)[0])
    reference.refresh()
    expected = np.linalg.inv(reference.damped[0])
    np.testing.assert_allclose(block.A_inverse.asnumpy(), expected, rtol=0, atol=2e-4 * expected.max())
    assert float(block.full.asnumpy()) == 0.0


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=["dense", "grouped"])
def test_product_and_trace(case: Case, rng: np.random.Generator) -> None:
    """The block of the full statistics; later its correlations with the tracked diagonals."""
    block = block_of(case, rng, interval=1)
    # Of two batches the first keeps half of its weight.
    committed = Committed(block, decay=1 / 3)
    first, second = (case.batch(SAMPLES, rng) for _ in range(2))
    pairs = case.factors(*first)
    M = rng.standard_normal((len(pairs), len(pairs[0][1]), len(pairs[0][0])))
    matrix = tensor(M if len(pairs) > 1 else M[0])

    def assert_block(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
        found = block.multiply(matrix).asnumpy().reshape(M.shape)
        expected = np.stack([G @ m @ A for (A, G), m in zip(pairs, M)])
        # Sums of at most a few hundred float32 products.
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        trace = sum(np.trace(A) * np.trace(G) for A, G in pairs)
        assert float(block.trace().asnumpy()) == pytest.approx(trace, rel=1e-5)

    committed.add(first)
    assert_block(pairs)
    block.refresh(ms.Tensor(0.1))
    full = [block.A_sum.asnumpy().copy(), block.G_sum.asnumpy().copy(), block.weights.asnumpy()[:2].copy()]
    committed.add(second)
    # The full sums are those of the last full refresh until they are cleared.
    for found, kept in zip((block.A_sum, block.G_sum), full):
        np.testing.assert_array_equal(found.asnumpy(), kept)
    np.testing.assert_array_equal(block.weights.asnumpy()[:2], full[2])
    np.testing.assert_allclose(block.weights.asnumpy()[2:], full[2] * 1.5, rtol=1e-6)
    later = case.factors(*second)
    tracked = [tuple((0.5 * F + L) / 1.5 for F, L in zip(*both)) for both in zip(pairs, later)]
    mixed = []
    for pair, target in zip(pairs, tracked):
        scales = [np.sqrt(np.diag(T) / np.diag(F)) for F, T in zip(pair, target)]
        mixed.append(tuple(s[:, None] * F * s for s, F in zip(scales, pair)))
    assert_block(mixed)
    for group in range(2):
        observed = block.current_estimate(group)[0].asnumpy().reshape(len(pairs), -1)
        expected = np.stack([np.diag(pair[group]) for pair in tracked])
        np.testing.assert_allclose(observed, expected, rtol=2e-5)
    # The sums are cleared after the rank-one update: the diagonals are all there is.
    block.refresh(ms.Tensor(0.1))
    assert_block([tuple(np.diag(np.diag(F)) for F in pair) for pair in tracked])
