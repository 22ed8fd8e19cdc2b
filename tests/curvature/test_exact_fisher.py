"""K-FAC's blocks against the exact Fisher, where theory says that they are equal.

1. One sample: A ⊗ G = vec(dW) vec(dW)ᵀ, whatever the non-linearity.
2. A deep linear net with squared error: A ⊗ G is the block of the Gauss-Newton matrix (1/N) Σ JᵀJ.
vec stacks columns, so that vec(g aᵀ) = a ⊗ g.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.network import differentiate
from tests.oracle.patches import Geometry
from tests.oracle.preconditioner import gradient_matrix
from tests.support.bank import Bank, backward, convolution, linear_loss
from tests.support.loops import cross_entropy
from tests.support.networks import Perceptron, perceptron_reference, weights_of


def block(optimizer: nn.Optimizer, name: str) -> np.ndarray:
    factors = optimizer.factors(name)
    return np.kron(factors["A"].astype(np.float64), factors["G"].astype(np.float64))


@pytest.mark.parametrize("bias", [True, False])
def test_one_sample_through_a_nonlinear_net(mode: int, bias: bool, rng: np.random.Generator) -> None:
    net = Perceptron((4, 6, 5, 3), bias=bias)
    x = rng.standard_normal((1, 4)).astype(np.float32)
    y = np.array([2], np.int32)
    _, gradients, _ = differentiate(perceptron_reference(3, bias=bias), weights_of(net), x, y)
    optimizer = ms_kfac.KFAC(net, 0.1)
    loss = cross_entropy()

    def forward(inputs: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return loss(net(inputs), labels)

    optimizer(backward(forward, optimizer.parameters, x, y))

    for i in range(3):
        name = f"layers.{i}"
        dW = gradient_matrix(gradients[f"{name}.weight"], gradients.get(f"{name}.bias"))
        vec = dW.reshape(-1, order="F")
        exact = np.outer(vec, vec)
        # Products of four float32 numbers behind three layers.
        np.testing.assert_allclose(block(optimizer, name), exact, rtol=1e-4, atol=1e-5 * exact.max())


def test_one_sample_one_location(mode: int, rng: np.random.Generator) -> None:
    """A convolution whose kernel covers the image is a Dense layer, and as exact with one sample."""
    shape = Geometry(2, 3, (3, 4), pad_mode="valid", bias=True, image=(3, 4))
    net = Bank([convolution(shape, rng)])
    x = rng.standard_normal((1, 2, 3, 4)).astype(np.float32)
    c = rng.standard_normal((1, 3, 1, 1)).astype(np.float32)
    optimizer = ms_kfac.KFAC(net, 0.1)

    optimizer(backward(linear_loss(net, [c]), optimizer.parameters, x))

    vec = np.outer(c.reshape(-1), np.append(x.reshape(-1), 1)).reshape(-1, order="F").astype(np.float64)
    np.testing.assert_allclose(block(optimizer, "layers.0"), np.outer(vec, vec), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_deep_linear_net_with_squared_error(mode: int, bias: bool, rng: np.random.Generator) -> None:
    """The Fisher over Gaussian targets, taken exactly.

    With ½‖f − y‖² the model's own targets are y = f + noise, noise ~ N(0, I), and G depends on the noise's
    second moment only. Each sample is repeated once for every unit vector e_j, with the noise √d_out e_j:
    these d_out targets have the second moment I.
    """
    widths, samples = (4, 5, 3, 2), 7
    net = Perceptron(widths, linear=True, bias=bias)
    weights = weights_of(net)
    x = rng.standard_normal((samples, widths[0]))

    activations, f = [], x
    for i in range(3):
        activations.append(np.concatenate([f, np.ones((samples, 1))], axis=1) if bias else f)
        f = f @ weights[f"layers.{i}.weight"].T
        f = f + weights[f"layers.{i}.bias"] if bias else f
    outputs = widths[-1]
    noise = np.tile(np.sqrt(outputs) * np.eye(outputs), (samples, 1))
    inputs = np.repeat(x, outputs, axis=0).astype(np.float32)
    targets = (np.repeat(f, outputs, axis=0) + noise).astype(np.float32)
    optimizer = ms_kfac.KFAC(net, 0.1)

    def forward(images: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return 0.5 * ((net(images) - y) ** 2).sum(axis=1).mean()

    optimizer(backward(forward, optimizer.parameters, inputs, targets))

    for i in range(3):
        downstream = np.eye(outputs)
        for j in range(2, i, -1):
            downstream = downstream @ weights[f"layers.{j}.weight"]
        exact = np.zeros(())
        for a in activations[i]:
            jacobian = np.kron(a[None, :], downstream)
            exact = exact + jacobian.T @ jacobian / samples
        # f − y cancels digits of f: float32 ε times |f|/|noise|, about 3, through three layers.
        np.testing.assert_allclose(block(optimizer, f"layers.{i}"), exact, rtol=1e-4, atol=3e-6 * exact.max())
