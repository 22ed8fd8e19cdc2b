"""`precondition` against one dense solve with A_damped ⊗ G_damped."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.patches import Geometry
from tests.oracle.preconditioner import condition_number, precondition
from tests.support.bank import Bank, backward, convolution, linear_loss, randomise

CONVOLUTIONS = (
    Geometry(2, 3, (3, 2), bias=True, image=(4, 5)),
    Geometry(2, 3, (1, 3), image=(4, 5)),
    Geometry(4, 6, (2, 2), groups=2, bias=True, image=(4, 4)),
    Geometry(3, 3, (3, 3), groups=3, image=(4, 4)),
)
SAMPLES = 12


def build(rng: np.random.Generator) -> tuple[Bank, list[np.ndarray], list[np.ndarray]]:
    """A net of dense and convolution layers, its inputs and its coefficients."""
    net = Bank([nn.Dense(5, 4), nn.Dense(3, 6, has_bias=False), *(convolution(s, rng) for s in CONVOLUTIONS)])
    randomise(net, rng)
    x = [rng.standard_normal((SAMPLES, d)) for d in (5, 3)]
    c = [rng.standard_normal((SAMPLES, d)) for d in (4, 6)]
    for shape in CONVOLUTIONS:
        x.append(rng.standard_normal((SAMPLES, shape.in_channels, *shape.image)))
        c.append(rng.standard_normal((SAMPLES, shape.out_channels, *shape.output_size())))
    return net, x, c


@pytest.mark.parametrize("damping", [1.0, 1e-2, 1e-4])
def test_equals_the_dense_solve(mode: int, damping: float, rng: np.random.Generator) -> None:
    net, x, c = build(rng)
    optimizer = ms_kfac.KFAC(net, 0.1, damping=damping)
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    found = dict(zip((p.name for p in optimizer.parameters), optimizer.precondition(gradients)))
    raw = {p.name: g.asnumpy() for p, g in zip(optimizer.parameters, gradients)}

    for i in range(len(x)):
        name = f"layers.{i}"
        factors = optimizer.factors(name)
        A, G = factors["A"], factors["G"]
        weight, bias = f"{name}.weight", f"{name}.bias"
        U, u = precondition(raw[weight], raw.get(bias), A, G, damping)
        pairs = [(A, G)] if A.ndim == 2 else list(zip(A, G))
        condition = max(condition_number(*pair, damping) for pair in pairs)
        # float32 ε times the condition of the damped factors, with room for growth in the factorization.
        tolerance = max(1e-5, 4 * 1.2e-7 * condition) * np.abs(U).max()
        assert tolerance < 0.02 * np.abs(U).max(), "the case is too ill-conditioned to test anything"
        np.testing.assert_allclose(found[weight].asnumpy(), U, rtol=0, atol=tolerance, err_msg=weight)
        if u is not None:
            np.testing.assert_allclose(found[bias].asnumpy(), u, rtol=0, atol=tolerance, err_msg=bias)


def test_layers_without_signal_stay_finite(mode: int, rng: np.random.Generator) -> None:
    """A zero trace, on either side, divides nothing by zero; neither does a factor of low rank."""
    net = Bank([nn.Dense(5, 4, has_bias=False), nn.Dense(5, 4), nn.Dense(30, 20)])
    randomise(net, rng)
    x = [np.zeros((2, 5)), rng.standard_normal((2, 5)), rng.standard_normal((2, 30))]
    c = [rng.standard_normal((2, 4)), np.zeros((2, 4)), rng.standard_normal((2, 20))]
    optimizer = ms_kfac.KFAC(net, 0.1, damping=1e-3)
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    for parameter, direction in zip(optimizer.parameters, optimizer.precondition(gradients)):
        assert np.isfinite(direction.asnumpy()).all(), parameter.name
        assert np.isfinite(parameter.asnumpy()).all(), parameter.name


def test_first_order_parameters_pass_unchanged(mode: int, rng: np.random.Generator) -> None:
    net, x, c = build(rng)
    optimizer = ms_kfac.KFAC(net, 0.1, skip=("layers.[12]",))
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    found = optimizer.precondition(gradients)
    for parameter, before, after in zip(optimizer.parameters, gradients, found):
        same = np.array_equal(before.asnumpy(), after.asnumpy())
        skipped = parameter.name.startswith(("layers.1.", "layers.2."))
        assert same == skipped, parameter.name
