"""TKFAC's block: its definition, its traces, one sample, the dense solve, layers without signal."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle import tkfac
from tests.oracle.network import Dense, differentiate
from tests.oracle.patches import Geometry
from tests.oracle.preconditioner import gradient_matrix
from tests.support.bank import Bank, backward, convolution, linear_loss, randomise, tensor
from tests.support.loops import cross_entropy
from tests.support.networks import Perceptron, perceptron_reference, weights_of

CONVOLUTIONS = (
    Geometry(2, 3, (3, 2), stride=(2, 1), pad_mode="pad", padding=(1, 0, 1, 1), bias=True, image=(5, 4)),
    Geometry(2, 3, (1, 3), image=(3, 4)),
    Geometry(4, 6, (2, 2), groups=2, bias=True, image=(3, 4)),
)
SAMPLES = 6
DENSE = 3


class Case:
    """Dense layers with and without bias and on (N, T, d), and convolutions, side by side."""

    def __init__(self, rng: np.random.Generator, samples: int = SAMPLES) -> None:
        dense = [nn.Dense(5, 4), nn.Dense(3, 6, has_bias=False), nn.Dense(4, 3)]
        self.net = Bank([*dense, *(convolution(s, rng) for s in CONVOLUTIONS)])
        randomise(self.net, rng)
        shapes = [((5,), (4,)), ((3,), (6,)), ((3, 4), (3, 3))]
        shapes += [((s.in_channels, *s.image), (s.out_channels, *s.output_size())) for s in CONVOLUTIONS]
        self.x = [rng.standard_normal((samples, *inputs)).astype(np.float32) for inputs, _ in shapes]
        self.c = [rng.standard_normal((samples, *outputs)).astype(np.float32) for _, outputs in shapes]

    def rows(self, index: int, sharing: str = "expand") -> list[tkfac.Rows]:
        """The layer's (a, g), group by group."""
        x, c = self.x[index], self.c[index]
        if index < DENSE:
            rows = [tkfac.dense_rows(x, c, index != 1)]
        else:
            rows = tkfac.convolution_rows(x, c, CONVOLUTIONS[index - DENSE])
        return [tkfac.reduced(pair) for pair in rows] if sharing == "reduce" else rows

    def blocks(self, index: int, sharing: str = "expand") -> list[tkfac.Block]:
        """(Φ, Ψ, δ) of every group."""
        return [tkfac.trace_restricted(rows) for rows in self.rows(index, sharing)]

    def gradients(self, optimizer: nn.Optimizer) -> tuple[ms.Tensor, ...]:
        """The gradients of the linear loss, by one backward pass."""
        return backward(linear_loss(self.net, self.c), optimizer.parameters, *self.x)


def assert_factors(
    found: dict[str, np.ndarray], expected: list[tkfac.Block], message: str, tolerance: float = 3e-6
) -> None:
    """Trace-one factors: at most 36 float32 terms, norms of 13 squares and a root each."""
    grouped = len(expected) > 1
    for name in ("Phi", "Psi"):
        matrices = np.stack([getattr(block, name) for block in expected])
        np.testing.assert_allclose(
            found[name], matrices if grouped else matrices[0], rtol=0, atol=tolerance, err_msg=message
        )
        # The bound promised to users.
        np.testing.assert_allclose(np.trace(found[name], axis1=-2, axis2=-1), 1.0, rtol=1e-5)
    delta = np.array([block.delta for block in expected])
    assert found["delta"].shape == (delta.shape if grouped else ())
    np.testing.assert_allclose(found["delta"], delta if grouped else delta[0], rtol=1e-5, err_msg=message)


def commit(optimizer: ms_kfac.TKFAC, gradients: tuple[ms.Tensor, ...]) -> None:
    optimizer.commit_statistics(gradients, optimizer.statistics_schedule.number_pending())


@pytest.mark.parametrize(("sharing", "ema"), [("expand", "partial_trace"), ("reduce", "paper")])
def test_definition_product_and_trace(mode: int, sharing: str, ema: str, rng: np.random.Generator) -> None:
    """After one batch both averages hold the batch: the definition, and the trace of the exact block."""
    case = Case(rng)
    optimizer = ms_kfac.TKFAC(case.net, 0.1, sharing=sharing, ema=ema)
    for i in range(len(case.x)):
        assert not any(factor.any() for factor in optimizer.factors(f"layers.{i}").values())
    commit(optimizer, case.gradients(optimizer))
    for i, block in enumerate(optimizer.blocks):
        name = f"layers.{i}"
        expected = case.blocks(i, sharing)
        assert_factors(optimizer.factors(name), expected, name)
        # Sums of the factors' float32 rounding.
        exact = sum(np.trace(tkfac.exact_block(rows)) for rows in case.rows(i, sharing))
        np.testing.assert_allclose(float(block.trace().asnumpy()), exact, rtol=1e-5, err_msg=name)
        M = rng.standard_normal((len(expected), len(expected[0].Psi), len(expected[0].Phi)))
        product = [b.delta * b.Psi @ part @ b.Phi for b, part in zip(expected, M)]
        found = block.multiply(tensor(M if len(expected) > 1 else M[0])).asnumpy()
        scale = np.abs(product).max()
        np.testing.assert_allclose(found.reshape(M.shape), product, rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize(("scale", "reduction", "parts"), [(1024.0, "mean", 2), (64.0, "sum", 2)])
def test_reduction_scale_and_micro_batches(
    mode: int, scale: float, reduction: str, parts: int, rng: np.random.Generator
) -> None:
    case = Case(rng)
    count, size = len(case.x), SAMPLES // parts
    optimizer = ms_kfac.TKFAC(case.net, 0.1, loss_scale=scale, reduction=reduction, accumulation_steps=parts)
    factor = scale / parts / (1 if reduction == "sum" else size)

    def forward(*inputs: ms.Tensor) -> ms.Tensor:
        outputs = case.net(*inputs[:count])
        loss = 0.0
        for i in range(count):
            loss = loss + (outputs[i] * inputs[count + i]).sum()
        return loss * factor

    gradient = ms.value_and_grad(forward, None, optimizer.parameters)
    passes = []
    for start in range(0, SAMPLES, size):
        passes.append(gradient(*(tensor(array[start : start + size]) for array in (*case.x, *case.c)))[1])
    commit(optimizer, tuple(sum(shares[1:], shares[0]) for shares in zip(*passes)))
    for i in range(count):
        assert_factors(optimizer.factors(f"layers.{i}"), case.blocks(i), f"layers.{i}")


@pytest.mark.parametrize("bias", [True, False])
def test_one_sample_through_a_nonlinear_net(mode: int, bias: bool, rng: np.random.Generator) -> None:
    """δ Φ ⊗ Ψ = vec(dW) vec(dW)ᵀ, whatever the non-linearity."""
    net = Perceptron((4, 6, 5, 3), bias=bias)
    x, y = rng.standard_normal((1, 4)).astype(np.float32), np.array([2], np.int32)
    _, gradients, _ = differentiate(perceptron_reference(3, bias=bias), weights_of(net), x, y)
    optimizer = ms_kfac.TKFAC(net, 0.1)
    loss = cross_entropy()

    def forward(inputs: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return loss(net(inputs), labels)

    optimizer(backward(forward, optimizer.parameters, x, y))

    for i in range(3):
        name = f"layers.{i}"
        vec = gradient_matrix(gradients[f"{name}.weight"], gradients.get(f"{name}.bias")).reshape(
            -1, order="F"
        )
        factors = {key: value.astype(np.float64) for key, value in optimizer.factors(name).items()}
        found = factors["delta"] * np.kron(factors["Phi"], factors["Psi"])
        exact = np.outer(vec, vec)
        # Products of four float32 numbers behind three layers.
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5 * exact.max())


def test_trace_of_the_exact_fisher_block(mode: int, rng: np.random.Generator) -> None:
    """Many samples, correlated a and g: K-FAC's trace is off, TKFAC's is the exact block's."""
    net = Perceptron((4, 6, 5, 3))
    x, y = rng.standard_normal((16, 4)).astype(np.float32), rng.integers(0, 3, 16).astype(np.int32)
    modules = perceptron_reference(3)
    _, _, statistics = differentiate(modules, weights_of(net), x, y)
    optimizer = ms_kfac.TKFAC(net, 0.1)
    loss = cross_entropy()

    def forward(inputs: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return loss(net(inputs), labels)

    commit(optimizer, backward(forward, optimizer.parameters, x, y))
    affine = [module for module in modules if isinstance(module, Dense)]
    for i, module in enumerate(affine):
        exact = np.trace(tkfac.exact_block(tkfac.module_rows(module)[0]))
        A, G = statistics[module.name]
        assert abs(np.trace(A) * np.trace(G) / exact - 1) > 1e-3, "the case tells the two methods apart"
        np.testing.assert_allclose(float(optimizer.factors(f"layers.{i}")["delta"]), exact, rtol=1e-5)


SOLVES = {
    "normal": {"damping": 0.05},
    "weak": {"damping": 1e-3},
    "printed": {"damping_mode": "automatic", "nu": 800.0},
    "homogeneous": {"damping_mode": "automatic", "nu": 800.0, "automatic_form": "homogeneous"},
    "bounded": {"damping_mode": "automatic", "nu": 800.0, "max_expansion": 1.5},
    "small nu": {"damping_mode": "automatic", "nu": 1e-3},
    "paper": {"damping_mode": "automatic", "nu": 800.0, "ema": "paper"},
    "paper, homogeneous": {
        "damping_mode": "automatic",
        "nu": 800.0,
        "ema": "paper",
        "automatic_form": "homogeneous",
    },
}


def test_equals_the_dense_solve_in_a_step(mode: int, rng: np.random.Generator) -> None:
    assert_solves(SOLVES["printed"], rng, whole_step=True)


@pytest.mark.parametrize("name", [name for name in SOLVES if name != "printed"])
def test_equals_the_dense_solve(name: str, rng: np.random.Generator) -> None:
    """The other forms without compiling a step."""
    assert_solves(SOLVES[name], rng, whole_step=False)


def assert_solves(options: dict[str, object], rng: np.random.Generator, whole_step: bool) -> None:
    """`precondition` of every layer against one dense solve, after one batch."""
    case = Case(rng)
    # One dense layer with a trace above ν / β and one convolution above ν, the others below.
    case.c[0], case.c[DENSE] = case.c[0] * 10, case.c[DENSE] * 3
    optimizer = ms_kfac.TKFAC(case.net, 0.1, **options)
    gradients = case.gradients(optimizer)
    if whole_step:
        optimizer(gradients)
        directions = optimizer.precondition(gradients)
    else:
        commit(optimizer, gradients)
        optimizer.refresh_inverses()
        directions = optimizer.preconditioned_gradients(gradients)
    found = dict(zip((p.name for p in optimizer.parameters), directions))
    raw = {p.name: g.asnumpy() for p, g in zip(optimizer.parameters, gradients)}
    nu = options.get("nu", 1.0)
    expansion = 1.0
    if "damping" not in options:
        ratios = [nu / b.delta for i in range(DENSE, len(case.x)) for b in case.blocks(i)]
        expansion = min(max(1.0, *ratios), options.get("max_expansion", 100.0))
        assert (expansion > 1.4) == (nu > 1), "β is tried both away from 1 and at 1"
        np.testing.assert_allclose(optimizer.expansion.asnumpy(), expansion, rtol=1e-5)

    for i in range(len(case.x)):
        if "damping" in options:
            damped = [tkfac.normal_factors(block, options["damping"]) for block in case.blocks(i)]
        else:
            beta = expansion if i < DENSE else 1.0
            homogeneous = options.get("automatic_form") == "homogeneous"
            damped = [tkfac.automatic_factors(block, nu, beta, homogeneous) for block in case.blocks(i)]
        weight, bias = f"layers.{i}.weight", f"layers.{i}.bias"
        dW = gradient_matrix(raw[weight], raw.get(bias))
        parts = [found[key].asnumpy() for key in (weight, bias) if key in found]
        U = tkfac.solve(dW, damped)
        # float32 ε times the condition of the damped factors, with room for growth in the factorization.
        tolerance = max(1e-5, 4 * 1.2e-7 * tkfac.condition_number(damped)) * np.abs(U).max()
        assert tolerance < 0.02 * np.abs(U).max(), "the case is too ill-conditioned to test anything"
        np.testing.assert_allclose(
            gradient_matrix(*parts, *[None] * (2 - len(parts))), U, rtol=0, atol=tolerance
        )


@pytest.mark.parametrize("ema", ["partial_trace", "paper"])
@pytest.mark.parametrize("damping_mode", ["normal", "automatic"])
def test_layers_without_signal(damping_mode: str, ema: str, rng: np.random.Generator) -> None:
    """A zero trace of inputs or of gradients, of one group of two, and a layer of low rank stay finite.

    Neither do the dead convolutions drive β to its bound.
    """
    grouped = Geometry(4, 2, (1, 1), groups=2, image=(2, 2))
    layers = [nn.Dense(5, 4, has_bias=False), nn.Dense(5, 4), nn.Dense(30, 20), convolution(grouped, rng)]
    net = Bank(layers)
    randomise(net, rng)
    x = [np.zeros((2, 5)), rng.standard_normal((2, 5)), rng.standard_normal((2, 30))]
    c = [rng.standard_normal((2, 4)), np.zeros((2, 4)), rng.standard_normal((2, 20))]
    x.append(rng.standard_normal((2, 4, 2, 2)))
    c.append(rng.standard_normal((2, 2, 2, 2)))
    c[-1][:, 1] = 0
    optimizer = ms_kfac.TKFAC(net, 0.1, damping=1e-3, damping_mode=damping_mode, ema=ema, nu=0.5)
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    commit(optimizer, gradients)
    optimizer.refresh_inverses()
    for parameter, direction in zip(optimizer.parameters, optimizer.preconditioned_gradients(gradients)):
        assert np.isfinite(direction.asnumpy()).all(), parameter.name
    assert all(np.isfinite(f).all() for i in range(4) for f in optimizer.factors(f"layers.{i}").values())
    if damping_mode == "automatic":
        a, g = tkfac.convolution_rows(x[-1], c[-1], grouped)[0]
        ratio = 0.5 / tkfac.trace_restricted((a, g)).delta
        np.testing.assert_allclose(optimizer.expansion.asnumpy(), max(1.0, ratio), rtol=1e-5)


def test_layer_that_no_pass_reached_keeps_its_gradient(rng: np.random.Generator) -> None:
    net = Bank([nn.Dense(3, 2), nn.Dense(3, 2)])
    randomise(net, rng)
    for options in ({"damping": 0.1}, {"damping_mode": "automatic"}):
        optimizer = ms_kfac.TKFAC(net, 0.1, **options)
        gradients = tuple(tensor(rng.standard_normal(p.shape)) for p in optimizer.parameters)
        optimizer.refresh_inverses()
        for before, after in zip(gradients, optimizer.preconditioned_gradients(gradients)):
            np.testing.assert_allclose(after.asnumpy(), before.asnumpy(), rtol=1e-6)
        optimizer.detach()
