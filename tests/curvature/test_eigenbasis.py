"""EKFAC's block against float64: every step of a run, the exact Fisher, the parts of a block on their own."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.curvature.eigenbasis import EigenbasisBlock
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from tests.oracle.eigenbasis import dense_gradients, eigenbasis_block, exact_block, second_moments
from tests.oracle.network import Dense, differentiate
from tests.oracle.sherman_morrison import FadingSum
from tests.support.bank import tensor
from tests.support.layer_bank import CASES, Case, build, gradient_function, layers_of, matrices
from tests.support.loops import cross_entropy, functional_step
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, perceptron_reference, weights_of
from tests.support.staging import Committed

SAMPLES = 10
DAMPING, DECAY, RATE = 0.05, 0.6, 0.1


def fade(past: float) -> tuple[float, float]:
    """What a batch leaves of the past, and the past with it."""
    factor = min(1.0, DECAY / (1 - DECAY) / past) if past else 1.0
    return factor, factor * past + 1


class Reference:
    """One layer or group through a run; the basis is the package's, which is checked to be one of A and G."""

    def __init__(self) -> None:
        self.A, self.G, self.s = FadingSum(), FadingSum(), FadingSum()
        # Of the past, in batches: A and G together, s by itself, which a new basis does not set back.
        self.past, self.past_of_s = 0.0, 0.0
        self.prior: np.ndarray | None = None
        self.Q_A, self.Q_G = np.zeros((2, 1, 1))

    def measure(self, dW: np.ndarray, pair: tuple[np.ndarray, np.ndarray] | None) -> None:
        """One batch: into the factors where `pair` is given, into s in any case where there is a basis."""
        if pair is not None:
            factor, self.past = fade(self.past)
            self.A.add(pair[0], factor)
            self.G.add(pair[1], factor)
        factor, self.past_of_s = fade(self.past_of_s)
        if self.prior is not None:
            self.s.add(second_moments(dW, self.Q_A, self.Q_G), factor)

    def adopt(self, Q_A: np.ndarray, Q_G: np.ndarray) -> None:
        """A new basis: checked, then taken over."""
        values = []
        for Q, F in ((Q_A, self.A.value), (Q_G, self.G.value)):
            Q = Q.astype(np.float64)
            # float32 eigenvectors of matrices of dimension 3 to 13.
            np.testing.assert_allclose(Q.T @ Q, np.eye(len(Q)), rtol=0, atol=1e-5)
            diagonal = Q.T @ F @ Q
            values.append(np.diag(diagonal))
            error = diagonal - np.diag(values[-1])
            assert np.abs(error).max() < 1e-5 * np.abs(F).max() * len(Q)
        self.Q_A, self.Q_G = Q_A.astype(np.float64), Q_G.astype(np.float64)
        self.prior = np.outer(values[1], values[0])
        self.s = FadingSum()

    @property
    def moments(self) -> np.ndarray:
        """What the update divides by, before damping."""
        assert self.prior is not None
        return self.s.value if self.s.weight else self.prior

    def update(self, dW: np.ndarray) -> np.ndarray:
        """U."""
        return self.Q_G @ ((self.Q_G.T @ dW @ self.Q_A) / (self.moments + DAMPING)) @ self.Q_A.T


@pytest.mark.parametrize("intervals", [(2, 3), (1, 1)], ids=["2:3", "1:1"])
def test_every_step_equals_the_reference(
    mode: int, intervals: tuple[int, int], rng: np.random.Generator
) -> None:
    """Second moments are used before their basis goes, and taken anew in the step after."""
    net = build(CASES, rng)
    optimizer = ms_kfac.EKFAC(
        net,
        RATE,
        damping=DAMPING,
        factor_decay=DECAY,
        **fixed_intervals(*intervals),
        momentum=0.0,
        kl_clip=None,
    )
    references = [[Reference() for _ in range(case.groups)] for case in CASES]
    gradient = gradient_function(net, optimizer.parameters)
    new_basis = False
    for step in range(9 if intervals == (2, 3) else 4):
        batch = [case.batch(SAMPLES, rng) for case in CASES]
        before = weights_of(net)
        gradients = gradient(batch)
        optimizer(gradients)
        moved = [tensor((weights_of(net)[p.name] - before[p.name]) / -RATE) for p in optimizer.parameters]
        due = step % intervals[0] == 0
        refresh = step % intervals[1] == 0
        for i, case in enumerate(CASES):
            name = f"layers.{i}"
            factors = {
                key: f.reshape(case.groups, *f.shape[-2:]) for key, f in optimizer.factors(name).items()
            }
            steps = matrices(optimizer, moved, name, case.groups)
            dWs = matrices(optimizer, gradients, name, case.groups)
            samples, pairs = case.gradients(*batch[i]), case.factors(*batch[i])
            for group, reference in enumerate(references[i]):
                if due or new_basis:
                    reference.measure(samples[group], pairs[group] if due else None)
                if step == 0:
                    reference.adopt(factors["Q_A"][group], factors["Q_G"][group])
                U = reference.update(dWs[group])
                # float32 sums of tens of terms, divided by at least the damping; a weight's last digit over
                # the learning rate.
                atol = 5e-5 * np.abs(U).max() + 4e-6
                np.testing.assert_allclose(steps[group], U, rtol=0, atol=atol, err_msg=f"{name} at {step}")
                if refresh and step > 0:
                    reference.adopt(factors["Q_A"][group], factors["Q_G"][group])
                moments = reference.moments
                atol = 2e-5 * moments.max()
                np.testing.assert_allclose(factors["s"][group], moments, rtol=0, atol=atol, err_msg=name)
                np.testing.assert_allclose(factors["A"][group], reference.A.value, rtol=2e-5, atol=2e-5)
                np.testing.assert_allclose(factors["G"][group], reference.G.value, rtol=2e-5, atol=2e-5)
        new_basis = refresh


def errors(factors: dict[str, np.ndarray], dW: np.ndarray) -> tuple[float, float, float]:
    """Frobenius errors of EKFAC's and of K-FAC's block, and the norm of the exact one."""
    exact = exact_block(dW)
    kfac = np.kron(factors["A"].astype(np.float64), factors["G"].astype(np.float64))
    ekfac = eigenbasis_block(factors["s"], factors["Q_A"], factors["Q_G"])
    return float(np.linalg.norm(ekfac - exact)), float(np.linalg.norm(kfac - exact)), np.linalg.norm(exact)


def test_never_farther_from_the_fisher_than_kfac(mode: int, rng: np.random.Generator) -> None:
    """One batch twice with a learning rate of 0: s of that batch, in the basis of that batch.

    With the default intervals (10:100): the second step measures s because the basis is new.
    """
    net = build(CASES, rng)
    optimizer = ms_kfac.EKFAC(net, 0.0, **fixed_intervals(10, 100))
    gradient = gradient_function(net, optimizer.parameters)
    batch = [case.batch(SAMPLES, rng) for case in CASES]
    for _ in range(2):
        optimizer(gradient(batch))
    for i, case in enumerate(CASES):
        factors = {
            key: f.reshape(case.groups, *f.shape[-2:]) for key, f in optimizer.factors(f"layers.{i}").items()
        }
        for group, dW in enumerate(case.gradients(*batch[i])):
            ekfac, kfac, norm = errors({key: f[group] for key, f in factors.items()}, dW)
            # Far from equal, so that the comparison says something.
            assert kfac > 0.05 * norm, i
            assert ekfac < 0.99 * kfac, i


@pytest.mark.parametrize("samples", [1, 9])
def test_through_a_nonlinear_net(mode: int, samples: int, rng: np.random.Generator) -> None:
    """Nine samples: nearer than K-FAC. One sample: the exact block."""
    net = Perceptron((4, 6, 5, 3))
    x = rng.standard_normal((samples, 4)).astype(np.float32)
    y = rng.integers(0, 3, samples).astype(np.int32)
    modules = perceptron_reference(3)
    differentiate(modules, weights_of(net), x, y)
    optimizer = ms_kfac.EKFAC(net, 0.0, **fixed_intervals(10, 100))
    step = functional_step(net, optimizer, cross_entropy())
    for _ in range(2):
        step(tensor(x), tensor(y))
    for module in modules:
        if isinstance(module, Dense):
            dW = dense_gradients(module.a, module.g, True)[0]
            ekfac, kfac, norm = errors(optimizer.factors(module.name), dW)
            if samples == 1:
                # Products of four float32 numbers behind three layers.
                assert ekfac < 2e-5 * norm, module.name
            else:
                assert kfac > 0.05 * norm, module.name
                assert ekfac < 0.99 * kfac, module.name


def block_of(case: Case, rng: np.random.Generator) -> EigenbasisBlock:
    """A block on its own, outside any optimizer."""
    statistics = StatisticsOptions(sharing="expand", mean_reduction=False, gradient_scale=1.0)
    layer = layers_of(build([case], rng))[0]
    return EigenbasisBlock(layer, prefix="alone", options=statistics)


def test_a_layer_without_statistics_passes_its_gradient(rng: np.random.Generator) -> None:
    block = block_of(CASES[0], rng)
    M = tensor(rng.standard_normal((3, 5)))
    np.testing.assert_array_equal(block.precondition(M).asnumpy(), M.asnumpy())
    block.refresh(ms.Tensor(0.1))
    np.testing.assert_array_equal(block.precondition(M).asnumpy(), M.asnumpy())
    assert float(block.trace().asnumpy()) == 0.0
    Committed(block).add(CASES[0].batch(SAMPLES, rng))
    block.refresh(ms.Tensor(0.1))
    assert float(block.damping.asnumpy()) == pytest.approx(0.1)


def test_nothing_of_the_eigenvalues_remains(rng: np.random.Generator) -> None:
    """Gradients a million times larger before the basis than after it: their last digit would show."""
    case = CASES[0]
    block = block_of(case, rng)
    x, g = case.batch(SAMPLES, rng)
    committed = Committed(block)
    committed.add((x, 1e6 * g))
    block.refresh(ms.Tensor(0.1))
    prior = block.factors()["s"]
    A, G = case.factors(x, 1e6 * g)[0]
    assert prior.sum() == pytest.approx(np.trace(A) * np.trace(G), rel=1e-5)
    committed.add((x, g), gate=4)
    factors = block.factors()
    expected = second_moments(case.gradients(x, g)[0], factors["Q_A"], factors["Q_G"])
    for found in (factors["s"], block.second_moments().asnumpy()):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=["dense", "grouped"])
@pytest.mark.parametrize("measured", [True, False])
def test_product_trace_and_observed(case: Case, measured: bool, rng: np.random.Generator) -> None:
    block = block_of(case, rng)
    batch = case.batch(SAMPLES, rng)
    committed = Committed(block)
    committed.add(batch)
    block.refresh(ms.Tensor(0.1))
    if measured:
        committed.add(batch, gate=4)
    factors = {key: f.reshape(case.groups, *f.shape[-2:]) for key, f in block.factors().items()}
    M = rng.standard_normal(factors["s"].shape)
    found = block.multiply(tensor(M if case.groups > 1 else M[0])).asnumpy().reshape(M.shape)
    trace = 0.0
    for group, (A, G) in enumerate(case.factors(*batch)):
        dense = np.kron(A, G)
        if measured:
            dW = case.gradients(*batch)[group]
            moments = second_moments(dW, factors["Q_A"][group], factors["Q_G"][group])
            dense = eigenbasis_block(moments, factors["Q_A"][group], factors["Q_G"][group])
        expected = (dense @ M[group].reshape(-1, order="F")).reshape(M[group].shape, order="F")
        np.testing.assert_allclose(found[group], expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        trace += np.trace(dense)
        for index, factor in enumerate((A, G)):
            observed = block.current_estimate(index)[0].asnumpy().reshape(case.groups, *factor.shape)[group]
            np.testing.assert_allclose(observed, factor, rtol=0, atol=2e-5 * np.abs(factor).max())
    assert float(block.trace().asnumpy()) == pytest.approx(trace, rel=1e-5)


def test_summary_names_the_block() -> None:
    optimizer = ms_kfac.EKFAC(nn.SequentialCell(nn.Dense(4, 3)), 0.1)
    assert "eigenbasis" in optimizer.summary()
