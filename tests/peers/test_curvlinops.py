"""Factors and preconditioned gradients against curvlinops, on the same weights and batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ms_kfac
from tests.peers import network
from tests.peers.network import DAMPING, LAYERS, Step, batch, last_step

torch = pytest.importorskip("torch", reason="the extra peers is not installed")
curvlinops = pytest.importorskip("curvlinops", reason="the extra peers is not installed")


def in_torch(step: Step) -> Any:
    """The network with the weights before the step, in float64."""
    layers = {
        "conv": torch.nn.Conv2d(network.CHANNELS, network.FILTERS, network.KERNEL, padding="same"),
        "tanh1": torch.nn.Tanh(),
        "flatten": torch.nn.Flatten(),
        "hidden": torch.nn.Linear(network.FEATURES, network.HIDDEN),
        "tanh2": torch.nn.Tanh(),
        "head": torch.nn.Linear(network.HIDDEN, network.CLASSES),
    }
    net = torch.nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    net = net.double()
    net.load_state_dict({name: torch.from_numpy(weight) for name, weight in step.before.items()})
    return net


def data() -> tuple[Any, Any]:
    """The batch, in float64."""
    images, labels = batch()
    return torch.from_numpy(images).double(), torch.from_numpy(labels).long()


def operator(net: Any, kind: str, eigenvalues: bool) -> Any:
    """curvlinops' K-FAC or EKFAC of the batch, weight and bias together, with the labels of the batch."""
    method = curvlinops.EKFACLinearOperator if eigenvalues else curvlinops.KFACLinearOperator
    return method(
        net,
        torch.nn.CrossEntropyLoss(),
        [p for p in net.parameters() if p.requires_grad],
        [data()],
        fisher_type="empirical",
        kfac_approx=kind,
        separate_weight_and_bias=False,
        check_deterministic=False,
    )


def directions(net: Any, inverse: Any) -> dict[str, np.ndarray]:
    """The preconditioned gradient of each layer as one matrix, the bias last."""
    x, y = data()
    loss = torch.nn.CrossEntropyLoss()(net(x), y)
    parameters = dict(net.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    found = dict(zip(parameters, (inverse @ [g.detach() for g in gradients])))
    matrices = {}
    for layer in LAYERS:
        weight, bias = (found[f"{layer}.{part}"].numpy() for part in network.PARTS)
        matrices[layer] = np.concatenate([weight.reshape(len(weight), -1), bias[:, None]], axis=1)
    return matrices


def assert_equal(found: np.ndarray, expected: np.ndarray, tolerance: float, name: str) -> None:
    """Relative to the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("kind", ["expand", "reduce"])
def test_factors_and_direction_of_kfac(kind: str) -> None:
    step = last_step(ms_kfac.KFAC, sharing=kind)
    net = in_torch(step)
    theirs = operator(net, kind, eigenvalues=False)
    theirs.compute_kronecker_factors()
    for layer in LAYERS:
        A, G = step.factors[layer]["A"], step.factors[layer]["G"]
        A_theirs = theirs._input_covariances[layer].numpy()
        G_theirs = theirs._gradient_covariances[layer].numpy()
        # The number of positions may stand in either factor: the Fisher is their product.
        scale = np.trace(A) / np.trace(A_theirs)
        # Sums of at most 16 · 30 products in float32.
        assert_equal(A, A_theirs * scale, 2e-4, f"A of {layer}")
        assert_equal(G, G_theirs / scale, 2e-4, f"G of {layer}")
    inverse = curvlinops.KFACInverseLinearOperator(theirs, damping=DAMPING, use_heuristic_damping=True)
    # The factors' error times a condition of at most ‖A‖ / √λ, some 100.
    for layer, expected in directions(net, inverse).items():
        assert_equal(step.direction(layer), expected, 1e-3, f"direction of {layer}")


def test_direction_of_ekfac() -> None:
    # The first step has no second moments yet.
    step = last_step(ms_kfac.EKFAC, steps=2)
    net = in_torch(step)
    inverse = curvlinops.KFACInverseLinearOperator(
        operator(net, "expand", eigenvalues=True), damping=DAMPING, use_exact_damping=True
    )
    for layer, expected in directions(net, inverse).items():
        assert_equal(step.direction(layer), expected, 1e-3, f"direction of {layer}")
