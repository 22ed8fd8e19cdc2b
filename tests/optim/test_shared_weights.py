"""Weights that are used more than once: layers called several times, towers, summed losses."""

from __future__ import annotations

import warnings
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from ms_kfac.curvature.skfac import SKFACBlock
from tests.oracle.factors import shared_factors
from tests.oracle.network import cross_entropy as reference_loss
from tests.support.bank import randomise, tensor
from tests.support.loops import Batch, cell_step, cross_entropy, functional_step, gradient_function, run

N, CALLS, WIDTH, CLASSES = 6, 3, 4, 3
OPTIONS: dict[str, Any] = {
    "factor_interval": ms_kfac.FixedInterval(1),
    "inverse_interval": ms_kfac.FixedInterval(1),
    # Factors of the last batch alone.
    "factor_decay": 0.0,
}


class Recurrent(nn.Cell):
    """A recurrence, unrolled: the cell is called for each step of the input, the head once."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.cell = nn.Dense(width, width)
        self.head = nn.Dense(width, CLASSES)
        randomise(self, np.random.default_rng(3), 1 / np.sqrt(width))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        state = x[:, 0] * 0.0
        for step in range(CALLS):
            state = ops.tanh(self.cell(state + x[:, step]))
        return self.head(state)


class Towers(nn.Cell):
    """Two towers of the same layers; every layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Dense(WIDTH, WIDTH, activation="tanh")
        self.out = nn.Dense(WIDTH, CLASSES)
        randomise(self, np.random.default_rng(4))

    def tower(self, x: ms.Tensor) -> ms.Tensor:
        return self.out(self.hidden(x))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.tower(x[:, 0]) + self.tower(2.0 * x[:, 1])


class Bypassed(nn.Cell):
    """The first layer's weight is used without the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dense(WIDTH, WIDTH)
        self.head = nn.Dense(WIDTH, CLASSES)
        randomise(self, np.random.default_rng(5))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.head(ops.tanh(ops.dense(x[:, 0], self.first.weight, self.first.bias)))


def data(steps: int, width: int = WIDTH, seed: int = 1) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((N, CALLS, width)).astype(np.float32),
            rng.integers(0, CLASSES, N).astype(np.int32),
        )
        for _ in range(steps)
    ]


def weights_of(net: nn.Cell) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy().astype(np.float64) for p in net.trainable_params()}


def recurrent_factors(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Any:
    """(A, G) of the cell, with the calls as locations of the samples."""
    inputs, states = [], [np.zeros((N, x.shape[-1]))]
    for step in range(CALLS):
        inputs.append(states[-1] + x[:, step])
        states.append(np.tanh(inputs[-1] @ weights["cell.weight"].T + weights["cell.bias"]))
    _, flow = reference_loss(states[-1] @ weights["head.weight"].T + weights["head.bias"], y)
    flow, outputs = flow @ weights["head.weight"], []
    for step in reversed(range(CALLS)):
        outputs.insert(0, flow * (1 - states[step + 1] ** 2))
        flow = outputs[0] @ weights["cell.weight"]
    return shared_factors(np.stack(inputs, 1), N * np.stack(outputs, 1), bias=True)


def assert_factors(optimizer: Any, layer: str, A: np.ndarray, G: np.ndarray) -> None:
    # Float32 rounding of forward and backward passes of some products each.
    found = optimizer.factors(layer)
    np.testing.assert_allclose(found["A"], A, rtol=0, atol=1e-5 * np.abs(A).max())
    np.testing.assert_allclose(found["G"], G, rtol=0, atol=1e-5 * np.abs(G).max())


@pytest.mark.parametrize("steps", [functional_step, cell_step])
def test_an_unrolled_recurrence_is_a_dense_layer_with_locations(mode: int, steps: Any) -> None:
    net = Recurrent()
    optimizer = ms_kfac.KFAC(net, 0.05, **OPTIONS)
    step = steps(net, optimizer, cross_entropy())
    first, second = data(2)
    # The first commit finds out how often the cell is called.
    run(step, [first])
    before = weights_of(net)
    run(step, [second])
    assert_factors(optimizer, "cell", *recurrent_factors(before, *second))
    assert optimizer.verification.calls.calls.tolist() == [CALLS, 1]
    assert [checked.state for checked in optimizer.verification.checked] == ["verified"] * 2


def tower_factors(weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Any:
    """(A, G) of each layer, with both calls as locations."""
    calls = np.stack([x[:, 0], 2.0 * x[:, 1]], axis=1)
    states = np.tanh(calls @ weights["hidden.weight"].T + weights["hidden.bias"])
    logits = (states @ weights["out.weight"].T + weights["out.bias"]).sum(1)
    _, mean_flow = reference_loss(logits, y)
    # Both calls of the last layer are added up.
    flow = np.stack([len(x) * mean_flow] * 2, axis=1)
    return {
        "out": shared_factors(states, flow, bias=True),
        "hidden": shared_factors(calls, flow @ weights["out.weight"] * (1 - states**2), bias=True),
    }


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_towers_in_micro_batches_that_nothing_announces(mode: int, reduction: str) -> None:
    """Two calls per pass and two passes per step, of all layers."""
    net = Towers()
    optimizer = ms_kfac.KFAC(net, 0.05, reduction=reduction, **OPTIONS)
    gradient = gradient_function(net, optimizer, cross_entropy(reduction))
    parts = data(4)
    for first, second in ((parts[0], parts[1]), (parts[2], parts[3])):
        before = weights_of(net)
        total = [gradient(tensor(x), tensor(y))[1] for x, y in (first, second)]
        optimizer(tuple(a + b for a, b in zip(*total)))
    x, y = (np.concatenate(arrays) for arrays in zip(*parts[2:]))
    for layer, factors in tower_factors(before, x.astype(np.float64), y).items():
        assert_factors(optimizer, layer, *factors)
    assert optimizer.verification.calls.calls.tolist() == [2, 2]
    assert optimizer.verification.calls.micro_batches == 2


@pytest.mark.parametrize("kind", [Recurrent, Bypassed])
def test_samples_of_a_summed_loss_are_those_of_the_batch(mode: int, kind: type[nn.Cell]) -> None:
    """Not those of all calls of the layer that counts them; nor none, where no pass reaches it."""
    found = []
    for reduction in ("mean", "sum"):
        net = kind()
        optimizer = ms_kfac.KFAC(net, 0.05, reduction=reduction, kl_clip=None, **OPTIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(functional_step(net, optimizer, cross_entropy(reduction)), data(3))
        found.append(weights_of(net))
    for name, weight in found[0].items():
        # Sums instead of means of float32 numbers, and three steps.
        np.testing.assert_allclose(found[1][name], weight, rtol=0, atol=1e-5, err_msg=name)


def test_rows_of_all_calls_have_room_if_a_block_says_so() -> None:
    """SKFAC, with factors wider than a batch."""

    def block(layer: Any, **arguments: Any) -> SKFACBlock:
        return SKFACBlock(layer, **{**arguments, "period": CALLS})

    width = N * CALLS
    first, second = data(2, width)
    for blocks in ({}, {"cell": block}):
        net = Recurrent(width)
        optimizer = ms_kfac.SKFAC(net, 0.05, blocks=blocks, **{**OPTIONS, "factor_decay": 0.9})
        step = functional_step(net, optimizer, cross_entropy())
        if not blocks:
            with pytest.warns(UserWarning, match=f"calls layer cell {CALLS} times, but .* room for {N} rows"):
                run(step, [first])
            assert int(optimizer.blocks[0].weights.asnumpy()[0]) == N / CALLS
            continue
        run(step, [first])
        before = weights_of(net)
        run(step, [second])
        assert_factors(optimizer, "cell", *recurrent_factors(before, *second))
