"""NaN and Inf in a step: it leaves no trace, is told once by name, or raised; training goes on."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.support.bank import tensor
from tests.support.forms import fallback
from tests.support.loops import (
    Batch,
    State,
    assert_same_state,
    checkpoint_of,
    cross_entropy,
    functional_step,
    gradient_function,
    state_of,
)
from tests.support.methods import INTERVALS, METHODS
from tests.support.native import needs_native
from tests.support.networks import WIDTHS, Perceptron, vectors


def lost(value: float = np.nan) -> Batch:
    x, y = vectors(1, seed=9)[0]
    x[1, 2] = value
    return x, y


def build(name: str = "KFAC", **options: Any) -> tuple[Perceptron, nn.Optimizer]:
    net = Perceptron(WIDTHS)
    method, own = METHODS[name]
    return net, method(net, 0.05, **{"damping": 0.1, **own, **options})


def kept(optimizer: nn.Optimizer) -> State:
    """What a skipped step must not change: weights, moments, statistics and their weights."""
    names = {parameter.name for parameter in optimizer.parameters}
    ends = ("_sum", ".weights", ".past")
    if isinstance(optimizer, ms_kfac.SKFAC):
        # It has no averages, and the pass has replaced the last batch.
        ends = ("_solver", ".past")
    return {
        name: value
        for name, value in state_of(optimizer).items()
        if name in names or name.endswith(ends) or "moments." in name or ".adam." in name
    }


def assert_skips(step: Any, optimizer: nn.Optimizer, batch: Batch, *scale: ms.Tensor) -> None:
    before = kept(optimizer)
    step(*map(tensor, batch), *scale)
    assert_same_state(kept(optimizer), before)


def assert_trains(step: Any, optimizer: nn.Optimizer, batches: list[Batch]) -> None:
    before = [weight.asnumpy().copy() for weight in optimizer.parameters]
    for batch in batches:
        step(*map(tensor, batch))
    for weight, old in zip(optimizer.parameters, before):
        assert np.isfinite(weight.asnumpy()).all()
        assert (weight.asnumpy() != old).any()


@pytest.mark.parametrize("name", METHODS)
def test_a_skipped_step_leaves_no_trace(mode: int, name: str) -> None:
    """NaN in the first batch, at a refresh, and between refreshes; of the inputs, or of the loss alone."""
    net, optimizer = build(name)
    loss = cross_entropy()

    def forward(x: ms.Tensor, y: ms.Tensor, scale: ms.Tensor) -> ms.Tensor:
        return loss(net(x), y) * scale

    gradient = ms.value_and_grad(forward, None, optimizer.parameters)
    one, nan = ms.Tensor(1.0, ms.float32), ms.Tensor(np.nan, ms.float32)

    def step(x: ms.Tensor, y: ms.Tensor, scale: ms.Tensor = one) -> None:
        optimizer(gradient(x, y, scale)[1])

    with pytest.warns(
        UserWarning, match=r"step 0 was skipped: NaN in the gradient of layers\.0\.weight"
    ) as told:
        assert_skips(step, optimizer, lost())
        assert_trains(step, optimizer, vectors(1))
        assert_skips(step, optimizer, lost(np.inf))
        assert_skips(step, optimizer, vectors(1, seed=7)[0], nan)
        assert_trains(step, optimizer, vectors(2, seed=1))
    assert len(told) == 1, [str(warning.message) for warning in told]
    assert optimizer.skipped_steps == 3
    # SPNGD takes no statistics in some of these steps.
    assert 1 <= optimizer.refreshes()["refused"] <= 3


@pytest.mark.parametrize("name", ["KFAC", "TKFAC", "SMKFAC", "EKFAC", "THOR"])
@needs_native("check_step")
def test_statistics_with_nan_leave_the_layer_its_inverses(name: str) -> None:
    """The kernel used to fail, after which the compiled step never ran again, even after `restore`."""
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        net, optimizer = build(name)
        step, start = functional_step(net, optimizer, cross_entropy()), checkpoint_of(optimizer)
        assert_trains(step, optimizer, vectors(2))
        for parameter in optimizer.blocks[0].get_parameters():
            if parameter.name.endswith("_sum"):
                parameter.set_data(ms.Tensor(np.full(parameter.shape, np.nan, np.float32)))
        if name == "EKFAC":
            # Second moments are measured anew.
            optimizer.blocks[0].s_sum.set_data(ms.Tensor(np.ones_like(optimizer.blocks[0].s_sum.asnumpy())))
        words = r"the inverses of a layer were not computed in step \d: layers\.0: .*(NaN|positive definite)"
        with pytest.warns(UserWarning, match=words) as told:
            assert_trains(step, optimizer, vectors(3, seed=1))
        assert len(told) == 1, [str(warning.message) for warning in told]
        optimizer.restore(start)
        assert_trains(step, optimizer, vectors(3))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_a_hopeless_factor_in_the_fallback_skips_steps_by_name() -> None:
    """Finite, but MindSpore's Cholesky on CPUs raises for it, which would end the compiled step for good."""
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with fallback():
            net, optimizer = build()
        step, start = functional_step(net, optimizer, cross_entropy()), checkpoint_of(optimizer)
        assert_trains(step, optimizer, vectors(2))
        A_sum = next(p for p in optimizer.blocks[0].get_parameters() if p.name.endswith("A_sum"))
        broken = A_sum.asnumpy().copy()
        broken[0, 1] = broken[1, 0] = 1e30
        A_sum.set_data(ms.Tensor(broken))
        with pytest.warns(UserWarning, match=r"was skipped: NaN in the preconditioned gradient of layers\.0"):
            for batch in vectors(3, seed=1):
                step(*map(tensor, batch))
        optimizer.restore(start)
        assert_trains(step, optimizer, vectors(3))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_an_exception_is_raised_and_can_be_caught(mode: int) -> None:
    net, optimizer = build(on_nonfinite="raise")
    step = functional_step(net, optimizer, cross_entropy())
    assert "on_nonfinite='raise'" in optimizer.summary()
    assert_trains(step, optimizer, vectors(1))
    before = kept(optimizer)
    for number in (1, 2):
        words = rf"KFAC: step {number} was skipped: NaN in the gradient of layers\.0\.weight"
        with pytest.raises(ms_kfac.NonFiniteError, match=words) as error:
            step(*map(tensor, lost()))
        assert isinstance(error.value, FloatingPointError)
    assert_same_state(kept(optimizer), before)
    assert_trains(step, optimizer, vectors(2, seed=1))
    optimizer.check_finite()


@pytest.mark.parametrize("cell", [ms_kfac.TrainOneStepCell, nn.TrainOneStepCell], ids=["own", "MindSpore"])
def test_training_cells(mode: int, cell: Any) -> None:
    """MindSpore's cell in graph mode can't raise: the method does."""
    net, optimizer = build(on_nonfinite="raise")
    step = cell(nn.WithLossCell(net, cross_entropy()), optimizer).set_train()
    raises = pytest.raises(ms_kfac.NonFiniteError, match="step 0 was skipped: NaN in the gradient of")
    compiled = mode == ms.GRAPH_MODE and cell is nn.TrainOneStepCell
    with nullcontext() if compiled else raises:
        step(*map(tensor, lost()))
    if compiled:
        with raises:
            optimizer.check_finite()
    optimizer.check_finite()
    assert_trains(step, optimizer, vectors(1))


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native("check_step")), False])
def test_adamw_the_fallback_and_averages_skip_too(native: bool) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with nullcontext() if native else fallback():
            net, optimizer = build(first_order="adam", skip=["layers.1"], averaging=0.9)
            step = functional_step(net, optimizer, cross_entropy())
            assert_trains(step, optimizer, vectors(1))
            words = r"step 1 was skipped: NaN in the gradient of layers\.0\.weight"
            with pytest.warns(UserWarning, match=words) as told:
                assert_skips(step, optimizer, lost())
            assert len(told) == 1, [str(warning.message) for warning in told]
            assert_trains(step, optimizer, vectors(1, seed=1))
            assert optimizer.skipped_steps == 1
            assert all(np.isfinite(value).all() for value in state_of(optimizer).values())
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_a_nan_in_one_gradient_alone_refuses_the_statistics_of_all_layers(mode: int) -> None:
    net, optimizer = build()
    gradient = gradient_function(net, optimizer, cross_entropy())
    optimizer(gradient(*map(tensor, vectors(1)[0]))[1])
    second = [*gradient(*map(tensor, vectors(1, seed=1)[0]))[1]]
    second[3] = second[3] * float("inf")
    before = kept(optimizer)
    with pytest.warns(
        UserWarning, match=r"step 1 was skipped: (NaN|Inf) in the gradient of layers\.1\.bias\."
    ):
        optimizer(tuple(second))
        ms.runtime.synchronize()
    assert_same_state(kept(optimizer), before)


def test_weights_that_hold_nan_are_named(mode: int) -> None:
    net, optimizer = build()
    step, start = functional_step(net, optimizer, cross_entropy()), checkpoint_of(optimizer)
    assert_trains(step, optimizer, vectors(1))
    weight = optimizer.parameters[2]
    weight.set_data(ms.Tensor(np.full(weight.shape, np.nan, np.float32)))
    words = r"step 1 was skipped: the weights already hold NaN in layers\.1\.weight\. No later step"
    with pytest.warns(UserWarning, match=words) as told:
        for batch in vectors(3):
            step(*map(tensor, batch))
        assert optimizer.skipped_steps == 3
    assert len(told) == 1
    optimizer.restore(start)
    assert_trains(step, optimizer, vectors(2))


@pytest.mark.parametrize("name", METHODS)
def test_the_option_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match="on_nonfinite must be one of 'skip', 'raise', got 'ignore'"):
        build(name, on_nonfinite="ignore")
    if name == "KFAC":
        assert "on_nonfinite='skip'" in build(name, **INTERVALS)[1].summary()


def test_skips_of_a_loaded_run_are_not_new() -> None:
    loss = cross_entropy()
    net, optimizer = build(on_nonfinite="raise")
    gradient = ms.value_and_grad(lambda x, y: loss(net(x), y), None, optimizer.parameters)
    with pytest.raises(ms_kfac.NonFiniteError):
        optimizer(gradient(*map(tensor, lost()))[1])
    saved = checkpoint_of(optimizer)
    _, other = build(on_nonfinite="raise")
    ms.load_param_into_net(other, saved)
    assert other.skipped_steps == 1
    other.check_finite()


def test_the_fallback_without_blocks_skips_too(mode: int) -> None:
    with fallback():
        with pytest.warns(UserWarning, match="no layer of the network is preconditioned"):
            net, optimizer = build(skip=["."])
        step = functional_step(net, optimizer, cross_entropy())
        with pytest.warns(UserWarning, match="step 0 was skipped"):
            assert_skips(step, optimizer, lost())
        assert_trains(step, optimizer, vectors(1))
