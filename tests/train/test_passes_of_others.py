"""Backward passes whose gradients the step does not get: paused, recognised, or refused with a way out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import (
    Batch,
    State,
    assert_same_state,
    checkpoint_of,
    cross_entropy,
    gradient_function,
    state_of,
)
from tests.support.methods import fixed_intervals
from tests.support.native import needs_native
from tests.support.networks import Perceptron

WIDTHS, CLASSES, SAMPLES = (5, 6, 4, 3), 3, 8
INTERVALS = fixed_intervals(1, 2)

# Fallbacks can't tell calls from micro-batches in graph mode, nor be differentiated twice there.
native_only = needs_native("kronecker_statistics")


def data(count: int, samples: int = SAMPLES, seed: int = 0) -> list[Batch]:
    rng = np.random.default_rng(seed)
    return [
        (
            rng.standard_normal((samples, WIDTHS[0])).astype(np.float32),
            rng.integers(0, CLASSES, samples).astype(np.int32),
        )
        for _ in range(count)
    ]


class Training:
    """A network, its optimizer and its gradients, which start anew as often as a test asks for."""

    def __init__(self, method: Any = ms_kfac.KFAC, reduction: str = "mean", **options: Any) -> None:
        self.net = Perceptron(WIDTHS)
        self.optimizer = method(self.net, 0.05, reduction=reduction, **options)
        self.gradients = gradient_function(self.net, self.optimizer, cross_entropy(reduction))
        self.start = checkpoint_of(self.optimizer)

    def of(self, batch: Batch) -> tuple[ms.Tensor, ...]:
        return self.gradients(tensor(batch[0]), tensor(batch[1]))[1]


def factors_of(optimizer: nn.Optimizer) -> dict[str, np.ndarray]:
    found = [(layer, optimizer.factors(layer)) for layer in optimizer.layers]
    return {f"{layer}.{name}": value for layer, own in found for name, value in own.items()}


# One gate; the count of samples in addition; a gate per layer, whose codes differ from step to step.
CASES: dict[str, dict[str, Any]] = {
    "KFAC": INTERVALS,
    "sum": {"reduction": "sum", "kl_clip": None, **INTERVALS},
    "SPNGD": {"method": ms_kfac.SPNGD, "similarity": 1e6},
}


@pytest.mark.parametrize("case", CASES)
def test_passes_inside_a_pause_leave_no_trace(mode: int, case: str) -> None:
    """Before the gradient, between gradient and step, after the step; nested, and left by an exception."""
    training = Training(**CASES[case])
    optimizer, others = training.optimizer, data(4, seed=7)
    for batch in data(4):
        optimizer(training.of(batch))
    expected = state_of(optimizer)

    optimizer.restore(training.start)
    for number, batch in enumerate(data(4)):
        # Without a pause a pass before the gradient is replaced by the step's own.
        training.of(others[number])
        gradients = training.of(batch)
        with optimizer.paused():
            training.of(others[0])
            with optimizer.paused():
                training.of(others[1])
            training.of(data(1, samples=5)[0])
        with pytest.raises(ZeroDivisionError), optimizer.paused():
            training.of(others[2])
            raise ZeroDivisionError
        optimizer(gradients)
        with optimizer.paused():
            training.of(others[3])
    assert_same_state(state_of(optimizer), expected)
    assert optimizer.refreshes()["refused"] == 0


def test_a_step_inside_its_own_pause_is_refused(mode: int) -> None:
    training = Training(**INTERVALS)
    optimizer, batch = training.optimizer, data(1)[0]
    gradients = training.of(batch)
    refused = pytest.raises(RuntimeError, match=r"step must be outside its own paused\(\) block")
    with refused, optimizer.paused():
        optimizer(gradients)
    assert int(optimizer.global_step.asnumpy().item()) == 0
    cell = nn.TrainOneStepCell(nn.WithLossCell(training.net, cross_entropy()), optimizer)
    cell.set_train()
    with refused, optimizer.paused():
        cell(*map(tensor, batch))
    # The gates are not those of a pause any more.
    before = optimizer.refreshes()["statistics"]
    cell(*map(tensor, batch))
    assert optimizer.refreshes()["statistics"] == before + 1
    assert all(checked.state == "verified" for checked in optimizer.verification.checked)


def test_a_pause_inside_a_compiled_function_is_refused(mode: int) -> None:
    training = Training(**INTERVALS)
    optimizer, gradients = training.optimizer, training.gradients

    @ms.jit
    def step(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        with optimizer.paused():
            value, _ = gradients(x, y)
        return value

    with pytest.raises(TypeError, match="must be around a compiled function, not inside it"):
        step(*map(tensor, data(1)[0]))


class Half(nn.Cell):
    """Three dense layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.net = Perceptron((inputs, 7, 6, outputs), seed=inputs)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.net(x)


class Gan:
    """A generator and a discriminator, each with an optimizer. Learning rates of 0 keep them comparable."""

    def __init__(self) -> None:
        self.both = nn.CellList([Half(3, 5), Half(5, 1)])
        generator, discriminator = self.both
        options = {"factor_decay": 0.0, **INTERVALS}
        self.of_generator = ms_kfac.KFAC(generator, 0.0, **options)
        self.optimizer = ms_kfac.KFAC(discriminator, 0.0, **options)

        def told_apart(z: ms.Tensor, x: ms.Tensor) -> ms.Tensor:
            made = ops.stop_gradient(generator(z))
            return ((discriminator(x) - 1.0) ** 2).mean() + (discriminator(made) ** 2).mean()

        def fooled(z: ms.Tensor) -> ms.Tensor:
            return ((discriminator(generator(z)) - 1.0) ** 2).mean()

        self.gradients = ms.grad(told_apart, None, self.optimizer.parameters)
        self.of_fooled = ms.grad(fooled, None, self.of_generator.parameters)
        # The first commit finds that a pass calls the discriminator twice.
        z, x = points(5)[-1]
        self.optimizer(self.gradients(z, x))
        self.start = checkpoint_of(self.optimizer)

    def factors(self) -> dict[str, np.ndarray]:
        return factors_of(self.optimizer)


def points(count: int) -> list[tuple[ms.Tensor, ms.Tensor]]:
    rng = np.random.default_rng(5)
    return [
        (tensor(rng.standard_normal((SAMPLES, 3))), tensor(1.5 + rng.standard_normal((SAMPLES, 5))))
        for _ in range(count)
    ]


def assert_close(found: State, expected: State) -> None:
    """Up to rounding: the order of two calls in one compiled pass is not fixed."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        bound = 2e-5 * max(float(np.abs(value).max()), 1e-3)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=bound, err_msg=name)


def messages(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    return [str(entry.message) for entry in caught]


@native_only
def test_a_generator_s_pass_through_the_discriminator(mode: int) -> None:
    """The orders that are written, with and without a pause, against a discriminator that trains alone."""
    gan = Gan()
    optimizer, of_generator, start = gan.optimizer, gan.of_generator, gan.factors()
    for z, x in points(4):
        optimizer(gan.gradients(z, x))
    expected, factors = state_of(optimizer), gan.factors()

    optimizer.restore(gan.start)
    for number, (z, x) in enumerate(points(4)):
        gradients = gan.gradients(z, x)
        if number % 2 == 0:
            optimizer(gradients)
        with optimizer.paused():
            # The other optimizer may take its step inside.
            of_generator(gan.of_fooled(z))
        if number % 2 == 1:
            optimizer(gradients)
    assert_close(state_of(optimizer), expected)
    assert {checked.state for checked in of_generator.verification.checked} == {"verified"}

    # Without a pause, after the discriminator's step: one batch is refused, then its calls are told apart.
    optimizer.restore(gan.start)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for z, x in points(4):
            optimizer(gan.gradients(z, x))
            of_generator(gan.of_fooled(z))
    (message,) = messages(caught)
    assert message.startswith("KFAC (kfac.1): a backward pass that is not the step's own reached layers")
    assert "with optimizer.paused():" in message
    assert optimizer.refreshes()["refused"] == 1
    assert_close(gan.factors(), factors)

    # Between gradient and step: every batch is refused.
    optimizer.restore(gan.start)
    for z, x in points(3):
        gradients = gan.gradients(z, x)
        of_generator(gan.of_fooled(z))
        optimizer(gradients)
    assert optimizer.refreshes()["refused"] == 3
    assert_close(gan.factors(), start)


Step = Callable[[ms.Tensor, ms.Tensor], bool]


def the_step_first(gan: Gan) -> Step:
    def step(z: ms.Tensor, x: ms.Tensor) -> bool:
        gan.optimizer(gan.gradients(z, x))
        return gan.of_generator(gan.of_fooled(z))

    return step


def inputs_that_wait(gan: Gan) -> Step:
    def step(z: ms.Tensor, x: ms.Tensor) -> bool:
        fooled = gan.of_fooled(z)
        gradients = gan.gradients(ops.depend(z, fooled), ops.depend(x, fooled))
        gan.of_generator(fooled)
        return gan.optimizer(gradients)

    return step


def no_order(gan: Gan) -> Step:
    def step(z: ms.Tensor, x: ms.Tensor) -> bool:
        fooled = gan.of_fooled(z)
        gradients = gan.gradients(z, x)
        gan.of_generator(fooled)
        return gan.optimizer(gradients)

    return step


@native_only
@pytest.mark.parametrize("made", [the_step_first, inputs_that_wait, no_order])
def test_both_passes_in_one_graph(mode: int, made: Callable[[Gan], Step]) -> None:
    """The compiler chooses the order of two passes, unless a step or `ops.depend` is between them."""
    gan = Gan()
    optimizer, expected = gan.optimizer, []
    for z, x in points(4):
        optimizer(gan.gradients(z, x))
        # Without a past: those of the last batch that was taken.
        expected.append(gan.factors())
    optimizer.restore(gan.start)
    step, refused, before = ms.jit(made(gan)), 0, gan.factors()
    with pytest.warns(UserWarning, match="compiled function, compute them after the step") as caught:
        for (z, x), factors in zip(points(4), expected):
            step(z, x)
            is_refused = optimizer.refreshes()["refused"] > refused
            refused += is_refused
            assert_close(gan.factors(), before if is_refused else factors)
            before = gan.factors()
    assert len(caught) == 1
    assert refused == 1 or made is no_order
    assert {checked.state for checked in gan.of_generator.verification.checked} == {"verified"}


def test_sharpness_aware_steps(mode: int) -> None:
    """The first pass finds the perturbation, the second is the step's: the factors are those of it alone."""
    # Without a past, so that the factors are those of one batch.
    training, alone = (Training(factor_decay=0.0, **INTERVALS) for _ in range(2))
    for batch in data(2):
        weights = training.optimizer.parameters
        moves = [0.2 * gradient for gradient in training.of(batch)]
        for weight, other, move in zip(weights, alone.optimizer.parameters, moves):
            ops.assign_add(weight, move)
            ops.assign(other, weight + 0)
        gradients = training.of(batch)
        for weight, move in zip(weights, moves):
            ops.assign_sub(weight, move)
        training.optimizer(gradients)
        alone.optimizer(alone.of(batch))
        # Two runs of the same operators.
        assert_same_state(factors_of(training.optimizer), factors_of(alone.optimizer))
    assert {checked.state for checked in training.optimizer.verification.checked} == {"verified"}


def test_steps_after_both_passes(mode: int) -> None:
    """Two losses, whose passes both come before the first step: no batch can be told to be its own."""
    training = Training(**INTERVALS)
    first, second = (training.of(batch) for batch in data(2))
    with pytest.warns(UserWarning, match="not the step's own"):
        training.optimizer(first)
    with pytest.warns(UserWarning, match="computed before the last step"):
        training.optimizer(second)
    assert not training.optimizer.factors("layers.0")["A"].any()
    for batch in data(2):
        training.optimizer(training.of(batch))
    assert training.optimizer.factors("layers.0")["A"].any()


@native_only
def test_gradient_penalties(mode: int) -> None:
    """The gradient is right; its pass is refused, alone or with the loss in one function.

    Paused and added, the statistics are those of the loss.
    """
    # Four layers: two may fit the gradient by chance, with a factor.
    net = Perceptron((5, 6, 6, 4, 1))

    def output(x: ms.Tensor) -> ms.Tensor:
        return net(x).sum()

    of_inputs = ms.grad(output, 0)

    def penalty(x: ms.Tensor) -> ms.Tensor:
        length = ops.sqrt((of_inputs(x) ** 2).sum(-1) + 1e-6)
        return ((length - 1.0) ** 2).mean()

    def loss(x: ms.Tensor) -> ms.Tensor:
        return (net(x) ** 2).mean()

    x = tensor(data(1)[0][0])
    parameters = net.trainable_params()
    expected = [gradient.asnumpy() for gradient in ms.grad(penalty, None, parameters)(x)]
    optimizer = ms_kfac.KFAC(net, 0.05, **INTERVALS)
    # Made anew: MindSpore keeps what it has compiled for the function above.
    gradients = ms.grad(copy_of(penalty), None, parameters)(x)
    for found, value in zip(gradients, expected):
        np.testing.assert_allclose(found.asnumpy(), value, rtol=1e-6, atol=1e-7)
    with pytest.warns(UserWarning, match=r"with optimizer.paused\(\):"):
        optimizer(gradients)
    assert not optimizer.factors("layers.0")["A"].any()

    def penalized(x: ms.Tensor) -> ms.Tensor:
        return loss(x) + penalty(x)

    optimizer.detach()
    optimizer = ms_kfac.KFAC(net, 0.0, **INTERVALS)
    of_both = ms.grad(copy_of(penalized), None, parameters)
    with pytest.warns(UserWarning) as caught:
        for batch in data(2):
            optimizer(of_both(tensor(batch[0])))
    (message,) = messages(caught)
    assert "a backward pass that is not the step's own" in message
    assert optimizer.refreshes()["refused"] == 2
    assert not optimizer.factors("layers.0")["A"].any()

    optimizer.detach()
    optimizer = ms_kfac.KFAC(net, 0.05, verify="off", **INTERVALS)
    own = ms.grad(loss, None, parameters)(x)
    with optimizer.paused():
        added = ms.grad(copy_of(penalty), None, parameters)(x)
    optimizer(tuple(a + b for a, b in zip(own, added)))
    rows = np.c_[x.asnumpy(), np.ones(SAMPLES)].astype(np.float64)
    np.testing.assert_allclose(optimizer.factors("layers.0")["A"], rows.T @ rows / SAMPLES, rtol=1e-5)


def copy_of(function: Any) -> Any:
    def called(x: ms.Tensor) -> ms.Tensor:
        return function(x)

    return called


def test_a_pause_holds_for_layers_that_the_last_pass_did_not_reach() -> None:
    """PyNative taps read their gate once per pass, at the first layer."""
    optimizer = Training(**INTERVALS).optimizer
    gate = optimizer.statistics_schedule.gates[0]
    layers = [object() for _ in range(3)]
    assert gate.is_open(layers[0])
    with optimizer.paused():
        assert not gate.is_open(layers[1])
    assert gate.is_open(layers[2])
