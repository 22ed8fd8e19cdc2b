"""The references themselves, against MindSpore's own forward and backward passes and against each other."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from tests.oracle.linear_maps import Maps, sides
from tests.oracle.momentum import Momentum
from tests.oracle.network import Module, differentiate
from tests.oracle.patches import Geometry, extract, fold
from tests.oracle.preconditioner import damped_factors, kronecker_solve
from tests.support.bank import backward, tensor
from tests.support.loops import cross_entropy
from tests.support.networks import (
    Perceptron,
    SmallNet,
    batches,
    perceptron_reference,
    small_net_reference,
    weights_of,
)
from tests.support.normalization import TokenNet, token_batches, token_net_reference


@pytest.mark.parametrize(
    ("net", "modules", "features"),
    [
        (SmallNet(), small_net_reference(), None),
        (Perceptron((6, 7, 5)), perceptron_reference(2), 6),
        (TokenNet(), token_net_reference(), None),
    ],
    ids=["small net", "perceptron", "token net"],
)
def test_gradients_equal_mindspore(
    net: nn.Cell, modules: list[Module], features: int | None, rng: np.random.Generator
) -> None:
    x, y = (token_batches if isinstance(net, TokenNet) else batches)(1)[0]
    if features:
        x = rng.standard_normal((len(y), features)).astype(np.float32)
    net.set_train(True)
    loss = cross_entropy()

    def forward(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return loss(net(images), labels)

    found = backward(forward, net.trainable_params(), x, y)
    value, expected, _ = differentiate(modules, weights_of(net), x, y)
    assert float(forward(tensor(x), tensor(y))) == pytest.approx(value, rel=1e-5)
    for parameter, gradient in zip(net.trainable_params(), found):
        # A few hundred float32 terms a sum.
        np.testing.assert_allclose(
            gradient.asnumpy(), expected[parameter.name], rtol=1e-4, atol=1e-5, err_msg=parameter.name
        )


def test_unit_wise_fisher_is_the_second_moment_of_single_sample_gradients() -> None:
    """Of a net whose samples do not meet: each sample's gradients come from a batch of one."""
    modules, weights = token_net_reference(), weights_of(TokenNet())
    x, y = token_batches(1)[0]
    F = np.zeros((6, 2, 2))
    for n in range(len(x)):
        _, gradients, _ = differentiate(modules, weights, x[n : n + 1], y[n : n + 1])
        pair = np.stack([gradients["norm.gamma"], gradients["norm.beta"]], axis=1)
        F += pair[:, :, None] * pair[:, None, :] / len(x)
    differentiate(modules, weights, x, y)
    np.testing.assert_allclose(modules[1].fisher(), F, rtol=1e-10)


def test_fold_is_the_transpose_of_extract(rng: np.random.Generator) -> None:
    shape = Geometry(2, 2, (3, 2), (2, 1), "pad", (2, 0, 1, 3), (1, 2), image=(7, 5))
    x = rng.standard_normal((2, 2, 7, 5))
    patches = extract(x, shape)
    other = rng.standard_normal(patches.shape)
    assert np.sum(patches * other) == pytest.approx(np.sum(x * fold(other, shape)), rel=1e-12)


def test_kronecker_solve_equals_two_small_solves(rng: np.random.Generator) -> None:
    A, G = (b @ b.T for b in (rng.standard_normal((4, 6)), rng.standard_normal((3, 5))))
    dW = rng.standard_normal((3, 4))
    A_damped, G_damped = damped_factors(A, G, 0.1)
    two = np.linalg.solve(G_damped, np.linalg.solve(A_damped, dW.T).T)
    np.testing.assert_allclose(kronecker_solve(dW, A, G, 0.1), two, rtol=1e-10)


def test_momentum_equals_mindspore(rng: np.random.Generator) -> None:
    """Heavy ball only: MindSpore 2.10's CPU kernel takes `use_nesterov=True` and then ignores it."""
    weight = ms.Parameter(tensor(rng.standard_normal(4)), name="weight")
    gamma = ms.Parameter(tensor(rng.standard_normal(4)), name="gamma")
    optimizer = nn.Momentum([weight, gamma], 0.1, 0.9, weight_decay=0.05)
    rule = Momentum(0.9, weight_decay=0.05)
    expected = {p.name: p.asnumpy().astype(np.float64) for p in (weight, gamma)}
    for _ in range(3):
        gradient = rng.standard_normal(4)
        optimizer((tensor(gradient), tensor(gradient)))
        expected = {name: rule.apply(name, value, gradient, 0.1) for name, value in expected.items()}
    for p in (weight, gamma):
        np.testing.assert_allclose(p.asnumpy(), expected[p.name], rtol=1e-5, atol=1e-6)


def test_gradients_of_outputs_give_those_of_weights(rng: np.random.Generator) -> None:
    """dW = (1/N) Σ g aᵀ over two calls of a map, against differences of the loss."""
    weights = {"map.weight": rng.standard_normal((3, 3)), "map.bias": rng.standard_normal(3)}
    x = rng.standard_normal((4, 2, 3))

    def losses(maps: Maps) -> np.ndarray:
        return np.tanh(maps("map", np.tanh(maps("map", x)))).sum((1, 2))

    a, g = sides(losses, weights)["map"]
    assert a.shape == g.shape == (4, 4, 3)
    dW = np.einsum("ntg,nta->ga", g, a) / 4
    for index in np.ndindex(3, 3):
        moved = np.zeros((3, 3))
        moved[index] = 1e-6
        values = [
            losses(Maps({**weights, "map.weight": weights["map.weight"] + sign * moved})).real.mean()
            for sign in (1, -1)
        ]
        # Central differences: 1e-12 of the third derivative, and rounding of 1e-16 / 1e-6.
        assert dW[index] == pytest.approx((values[0] - values[1]) / 2e-6, rel=0, abs=1e-8)
