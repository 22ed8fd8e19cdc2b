"""Loss scales that change: nothing depends on them, and a step that overflows leaves nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import randomise, tensor
from tests.support.loops import Batch, as_dataset, cross_entropy
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, SmallNet, batches

CLASSES = 3
SIZE = 8
State = dict[str, np.ndarray]


class Normed(nn.Cell):
    """Dense layers around a batch normalisation: all that a step changes, and quick to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Dense(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.activation = nn.Tanh()
        self.head = nn.Dense(4, CLASSES)
        randomise(self, np.random.default_rng(3))

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.head(self.activation(self.norm(self.hidden(x))))


def vectors(count: int) -> list[Batch]:
    """(inputs, labels) for `Normed`; the labels of every batch are the same."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, CLASSES, SIZE).astype(np.int32)
    return [(rng.standard_normal((SIZE, 5)).astype(np.float32), labels) for _ in range(count)]


def overflowing(batch: Batch) -> Batch:
    """One input is infinite, so that moments, statistics and gradients lose their numbers."""
    x = batch[0].copy()
    x[1, 2] = np.inf
    return x, batch[1]


INTERVALS = {"damping": 0.1, **fixed_intervals(2, 2)}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "first order": (nn.Momentum, {}),
    # Without the trust region, which would hide a gradient that is twice too large.
    "sum": (
        ms_kfac.KFAC,
        {"reduction": "sum", "normalization": "unit_wise", "averaging": 0.5, "kl_clip": None},
    ),
    "EKFAC": (ms_kfac.EKFAC, {}),
    "SMKFAC": (ms_kfac.SMKFAC, {"full_refreshes": 1}),
    "SKFAC": (ms_kfac.SKFAC, {}),
    "sampled": (ms_kfac.KFAC, {"fisher": "sampled"}),
    "Levenberg-Marquardt": (ms_kfac.KFAC, {"damping": None}),
    "AdamW": (ms_kfac.KFAC, {"first_order": "adam"}),
    "by layer": (ms_kfac.KFAC, {"factor_interval": ms_kfac.StaleStatistics(1e6)}),
}


def build(case: str, steps: int = 1, **scaling: Any) -> tuple[nn.Cell, nn.Optimizer, nn.Cell]:
    """A network, its optimizer and the training cell."""
    net = Normed()
    # The same draws for each optimizer that samples targets.
    ms.set_seed(4)
    method, options = CASES[case]
    if method is nn.Momentum:
        optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    else:
        options = {**INTERVALS, **options}
        if options["damping"] is None:
            # It holds a state of its own.
            options["damping"] = ms_kfac.LevenbergMarquardt(1.0, interval=2)
        optimizer = method(net, 0.1, accumulation_steps=steps, **options)
    loss = nn.WithLossCell(net, cross_entropy(options.get("reduction", "mean")))
    cell = ms_kfac.TrainOneStepCell(loss, optimizer, accumulation_steps=steps, **scaling)
    cell.set_train()
    return net, optimizer, cell


def state_of(net: nn.Cell, optimizer: nn.Optimizer) -> State:
    """All of it by name: weights, moving moments, momentum, statistics, inverses, counters, gates.

    Not the state of random draws, of which each optimizer has its own and a step that is dropped uses some.
    Not what is staged: the next pass replaces it.
    """
    parameters = {p.name: p for cell in (net, optimizer) for p in cell.get_parameters()}
    if isinstance(optimizer, ms_kfac.SKFAC):
        # The rows of G keep the loss scale, which their number undoes.
        parameters = {name: p for name, p in parameters.items() if not name.endswith(".weights")}
    passing = (".draws", "_batch", ".record", ".sampled_measured", ".samples", ".last_pass")
    return {name: p.asnumpy().copy() for name, p in parameters.items() if not name.endswith(passing)}


def train(case: str, data: Sequence[Batch], steps: int = 1, **scaling: Any) -> tuple[State, list[Any]]:
    """The state after one call a batch, and what the calls gave."""
    net, optimizer, cell = build(case, steps, **scaling)
    outputs = []
    for x, y in data:
        given = cell(tensor(x), tensor(y))
        values = given if isinstance(given, tuple) else (given,)
        outputs.append(tuple(value.asnumpy().item() for value in values))
    return state_of(net, optimizer), outputs


def dynamic(scale: float = 2.0**10, window: int = 2) -> nn.Cell:
    return nn.DynamicLossScaleUpdateCell(scale, 2, window)


@functools.cache
def unscaled(mode: int, case: str) -> tuple[State, list[Any]]:
    """Three steps without a loss scale, once a mode and case."""
    return train(case, vectors(3))


def assert_same(found: State, expected: State) -> None:
    """Equal to the bit: scales are powers of two, which no rounding notices."""
    assert set(found) >= set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_dropped(case: str, mode: int) -> None:
    """Two of five steps overflow, one that takes statistics and one that does not."""
    first, second, third = vectors(3)
    data = [first, overflowing(second), second, overflowing(third), third]
    found, outputs = train(case, data, scale_sense=dynamic())
    expected, losses = unscaled(mode, case)
    assert_same(found, expected)
    assert [overflow for _, overflow, _ in outputs] == [False, True, False, True, False]
    # Halved after each overflow, never two steps without one.
    assert [scale for _, _, scale in outputs] == [2.0**10, 2.0**9, 2.0**9, 2.0**8, 2.0**8]
    assert [outputs[i][0] for i in (0, 2, 4)] == [loss for (loss,) in losses]


@pytest.mark.parametrize("case", CASES)
def test_a_step_that_overflows_leaves_nothing_behind(case: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    assert_dropped(case, ms.GRAPH_MODE)
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.mark.parametrize("case", ["sum", "EKFAC", "sampled"])
def test_the_same_in_pynative_mode(case: str) -> None:
    assert_dropped(case, ms.PYNATIVE_MODE)


class OverflowingTargets(nn.Cell):
    """Targets half a unit off the outputs, and infinitely far in one of its calls."""

    def __init__(self, overflows_in: int) -> None:
        super().__init__(auto_prefix=False)
        self.overflows_in = overflows_in
        self.calls = ms.Parameter(tensor(np.zeros(())), name="calls", requires_grad=False)

    def construct(self, outputs: ms.Tensor) -> ms.Tensor:
        call = self.calls + 0.0
        distance = ops.select(call == self.overflows_in, tensor_infinity, tensor_half)
        return ops.depend(outputs + distance, ops.assign_add(self.calls, 1.0))


tensor_infinity, tensor_half = ms.Tensor(np.inf, ms.float32), ms.Tensor(0.5, ms.float32)


def test_sampled_targets_alone_overflow(mode: int) -> None:
    """The gradients of the true targets are finite; the statistics are lost all the same."""
    rng = np.random.default_rng(6)
    data = [(rng.standard_normal((SIZE, 5)), rng.standard_normal((SIZE, CLASSES))) for _ in range(2)]
    states = []
    for overflows_in, order in ((1, (0, 1, 1)), (-1, (0, 1))):
        net = Normed()
        optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", **{**INTERVALS, "factor_interval": 1})
        cell = ms_kfac.TrainOneStepCell(
            nn.WithLossCell(net, nn.MSELoss()),
            optimizer,
            sample_targets=OverflowingTargets(overflows_in),
            scale_sense=dynamic(2.0**10, 100),
        )
        cell.set_train()
        dropped = [bool(cell(tensor(x), tensor(y))[1].asnumpy()) for x, y in (data[i] for i in order)]
        assert dropped == [call == overflows_in for call in range(len(order))]
        states.append(state_of(net, optimizer))
    assert_same(*states)


def test_no_scale_is_seen_in_anything(mode: int) -> None:
    """A scale that doubles after every step, by MindSpore's rule; a fixed one, which only drops."""
    expected, losses = unscaled(mode, "sum")
    found, outputs = train("sum", vectors(3), scale_sense=dynamic(2.0**40, 1))
    assert_same(found, expected)
    assert [scale for _, _, scale in outputs] == [2.0**41, 2.0**42, 2.0**43]
    assert [(loss,) for loss, _, _ in outputs] == losses
    found, outputs = train("sum", vectors(3), scale_sense=nn.FixedLossScaleUpdateCell(2.0**20))
    assert_same(found, expected)
    assert [scale for _, _, scale in outputs] == [2.0**20] * 3


class Log(ms.train.Callback):
    """What every step of `Model.train` gave."""

    def __init__(self) -> None:
        self.outputs: list[tuple[float, ...]] = []

    def on_train_step_end(self, run_context: Any) -> None:
        outputs = run_context.original_args().net_outputs
        self.outputs.append(tuple(output.asnumpy().item() for output in outputs))


def test_float16_overflows_until_the_scale_fits(mode: int) -> None:
    """Level O3: gradients of the first steps exceed 65504, and the optimizer takes the later ones alone."""
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.05, damping=0.05, kl_clip=1e-3, **fixed_intervals(1, 2))
    manager = ms.DynamicLossScaleManager(2.0**21, 2, 1000)
    model = ms_kfac.Model(net, cross_entropy(), optimizer, amp_level="O3", loss_scale_manager=manager)
    log = Log()
    model.train(1, as_dataset(batches(8)), callbacks=[log], dataset_sink_mode=False)
    dropped = [bool(overflow) for _, overflow, _ in log.outputs]
    # Gradients of the logits reach 0.1; times 2²¹ they overflow float16, times 2¹⁵ they don't.
    assert dropped[0]
    assert not dropped[-1]
    taken = 8 - sum(dropped)
    assert int(optimizer.global_step.asnumpy().item()) == taken
    assert optimizer.refreshes()["statistics"] == taken
    assert log.outputs[-1][2] == 2.0 ** (21 - sum(dropped))
    for layer in ("conv1", "conv2", "head"):
        assert all(np.isfinite(factor).all() for factor in optimizer.factors(layer).values()), layer
    # MindSpore's own object follows.
    assert manager.get_loss_scale() == log.outputs[-1][2]


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_model_drops_steps_with_a_fixed_scale(level: str) -> None:
    """A first-order optimizer too; level O2 scales by itself where nobody says anything."""
    ms.set_context(mode=ms.GRAPH_MODE)
    net = Normed()
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    given = {} if level == "O2" else {"loss_scale_manager": ms.FixedLossScaleManager(2.0**10)}
    model = ms_kfac.Model(net, cross_entropy(), optimizer, amp_level=level, **given)
    start = state_of(net, optimizer)
    log = Log()
    model.train(
        1, as_dataset([overflowing(batch) for batch in vectors(2)]), callbacks=[log], dataset_sink_mode=False
    )
    assert [overflow for _, overflow, _ in log.outputs] == [True, True]
    assert_same(state_of(net, optimizer), start)
    ms.set_context(mode=ms.PYNATIVE_MODE)


def test_boost_would_leave_the_statistics_scaled() -> None:
    net = Perceptron((5, 3))
    manager = ms.DynamicLossScaleManager()
    with pytest.raises(ValueError, match="boost_level='O0'"):
        ms_kfac.Model(
            net, cross_entropy(), ms_kfac.KFAC(net, 0.1), boost_level="O1", loss_scale_manager=manager
        )


@pytest.mark.filterwarnings("ignore:KFAC took over layers")
def test_refused_by_name() -> None:
    net = Perceptron((5, 3))
    network = nn.WithLossCell(net, cross_entropy())
    parameter = ms.Parameter(ms.Tensor(4.0, ms.float32), name="scale", requires_grad=False)
    scaler = ms.amp.DynamicLossScaler(4.0, 2, 50)
    for optimizer, options, match in (
        (ms_kfac.KFAC(net, 0.1), {"sens": 8.0, "scale_sense": dynamic()}, r"sens=8\.0"),
        (ms_kfac.KFAC(net, 0.1, loss_scale=4.0), {"scale_sense": dynamic()}, r"loss_scale=4\.0"),
        (ms_kfac.KFAC(net, 0.1, loss_scale=parameter), {"scale_sense": dynamic()}, r"loss_scale=Parameter"),
        (ms_kfac.KFAC(net, 0.1, loss_scale=scaler), {"scale_sense": dynamic()}, r"loss_scale=Parameter"),
    ):
        with pytest.raises(ValueError, match=match):
            ms_kfac.TrainOneStepCell(network, optimizer, **options)
    with pytest.raises(TypeError, match=r"scale_sense.*1024"):
        ms_kfac.TrainOneStepCell(network, ms_kfac.KFAC(net, 0.1), scale_sense=1024.0)  # type: ignore[arg-type]
