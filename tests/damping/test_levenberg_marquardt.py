"""The rule, its prediction of the loss against float64, and problems where the ratio is known."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.ops.step.number_schedule import positive_schedule
from tests.oracle.network import differentiate
from tests.oracle.preconditioner import gradient_matrix
from tests.support.bank import tensor
from tests.support.loops import cell_step, cross_entropy, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import (
    CONV2,
    SMALL_NET_LAYERS,
    Perceptron,
    SmallNet,
    batches,
    small_net_reference,
    weights_of,
)


def scalar(value: float) -> ms.Tensor:
    return ms.Tensor(value, ms.float32)


@pytest.mark.parametrize(
    ("change", "predicted", "factor"),
    [
        (-0.80, -1.0, 0.5),
        (-0.74, -1.0, 1.0),
        (-0.26, -1.0, 1.0),
        (-0.24, -1.0, 2.0),
        (0.10, -1.0, 2.0),
        (0.90, 1.0, 0.5),
        (0.0, 0.0, 1.0),
        (float("nan"), -1.0, 1.0),
        (float("inf"), -1.0, 2.0),
    ],
)
def test_three_branches(mode: int, change: float, predicted: float, factor: float) -> None:
    rule = LevenbergMarquardt(0.25, interval=3, decrease=0.5)
    rule.expect(scalar(predicted))
    rule.adapt(scalar(change))
    assert float(rule.value.asnumpy()) == 0.25 * factor
    np.testing.assert_allclose(
        rule.ratio.asnumpy(), np.divide(change, predicted) if predicted else np.nan, 1e-6
    )


def test_clamps(mode: int) -> None:
    rule = LevenbergMarquardt(1.0, decrease=0.5, minimum=0.4, maximum=1.5)
    for change, expected in [(-1.0, 0.5), (-1.0, 0.4), (-1.0, 0.4), (0.0, 0.8), (0.0, 1.5), (0.0, 1.5)]:
        rule.expect(scalar(-1.0))
        rule.adapt(scalar(change))
        assert float(rule.value.asnumpy()) == pytest.approx(expected, rel=1e-6)


def test_defaults_and_interval() -> None:
    rule = LevenbergMarquardt(1.0)
    assert rule.decrease == pytest.approx((19 / 20) ** 5)
    assert LevenbergMarquardt(1.0, interval=2).decrease == pytest.approx((19 / 20) ** 2)
    due = [bool(rule.is_due(ms.Tensor([step], ms.int32))) for step in range(1, 12)]
    assert [step for step, is_due in enumerate(due, 1) if is_due] == [5, 10]
    assert float(positive_schedule("damping", rule)(ms.Tensor([3], ms.int32)).asnumpy()) == 1.0


@pytest.mark.parametrize(
    ("arguments", "name", "error"),
    [
        ({"initial": 0.0}, "initial", ValueError),
        ({"initial": "1"}, "initial", TypeError),
        ({"initial": 1e-9}, "initial", ValueError),
        ({"initial": 1e5}, "initial", ValueError),
        ({"interval": 0}, "interval", ValueError),
        ({"interval": 2.5}, "interval", TypeError),
        ({"interval": True}, "interval", TypeError),
        ({"decrease": 1.0}, "decrease", ValueError),
        ({"decrease": -0.5}, "decrease", ValueError),
        ({"minimum": 0.0}, "minimum", ValueError),
        ({"minimum": 2.0, "maximum": 1.5}, "minimum", ValueError),
        ({"maximum": float("inf")}, "maximum", ValueError),
    ],
    ids=str,
)
def test_refused(arguments: dict[str, object], name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"LevenbergMarquardt: {name} must be") as caught:
        LevenbergMarquardt(**{"initial": 1.0, **arguments})  # type: ignore[arg-type]
    assert repr(arguments[name]) in str(caught.value)


@pytest.mark.parametrize("step", [cell_step, functional_step])
def test_refused_without_the_training_cell(mode: int, step: object) -> None:
    """A damping that never adapts would pass unnoticed otherwise."""
    net = Perceptron((3, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, damping=LevenbergMarquardt(1.0))
    with pytest.raises(RuntimeError, match=r"ms_kfac\.TrainOneStepCell"):
        run(step(net, optimizer, cross_entropy()), [(np.ones((2, 3)), np.zeros(2, np.int32))])  # type: ignore[operator]


def quadratic(
    gradients: dict[str, np.ndarray],
    delta: dict[str, np.ndarray],
    factors: dict[str, dict[str, np.ndarray]],
    damping: float,
) -> float:
    """M(δ) − M(0) in float64, for `SmallNet`'s layers."""
    total = sum(np.sum(gradients[name] * delta[name]) for name in delta)
    total += 0.5 * damping * sum(np.sum(value**2) for value in delta.values())
    for layer in SMALL_NET_LAYERS:
        D = gradient_matrix(delta[f"{layer}.weight"], delta.get(f"{layer}.bias"))
        A, G = (np.asarray(factors[layer][letter], np.float64) for letter in "AG")
        groups = CONV2.groups if layer == "conv2" else 1
        A, G = A.reshape(groups, *A.shape[-2:]), G.reshape(groups, *G.shape[-2:])
        D = D.reshape(groups, -1, D.shape[-1])
        total += 0.5 * np.sum(D * (G @ D @ A))
    return float(total)


class ScaledLoss(nn.Cell):
    """A loss that scales itself, instead of `sens`."""

    def __init__(self, loss: nn.Cell, scale: float) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.scale = scale

    def construct(self, outputs: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        return self.loss(outputs, labels) * self.scale


@pytest.mark.parametrize(
    ("reduction", "sens", "inside"), [("mean", None, 64.0), ("sum", None, 1.0), ("mean", 1024.0, 1.0)]
)
def test_prediction_and_ratio(mode: int, reduction: str, sens: float | None, inside: float) -> None:
    """Convolutions, BatchNorm, momentum, AdamW and weight decay: δ is what really happened."""
    net = SmallNet()
    rule = LevenbergMarquardt(0.5, interval=2, decrease=0.5)
    optimizer = ms_kfac.KFAC(
        net,
        0.2,
        damping=rule,
        factor_interval=1,
        inverse_interval=1,
        weight_decay=0.1,
        kl_clip=0.1,
        nesterov=reduction == "sum",
        first_order=ms_kfac.AdamW(0.05) if sens is not None else "momentum",
        reduction=reduction,
        loss_scale=inside * (1.0 if sens is None else sens),
    )
    network = nn.WithLossCell(net, ScaledLoss(cross_entropy(reduction), inside))
    cell = ms_kfac.TrainOneStepCell(network, optimizer, sens)
    cell.set_train()
    modules = small_net_reference()
    damping, compared = 0.5, 0
    for number, (x, y) in enumerate(batches(4), 1):
        before = weights_of(net)
        cell(tensor(x), tensor(y))
        if number % 2:
            assert float(rule.value.asnumpy()) == damping
            continue
        compared += 1
        after = weights_of(net)
        loss, gradients, _ = differentiate(modules, before, x, y)
        change = differentiate(modules, after, x, y)[0] - loss
        delta = {name: after[name] - before[name] for name in before}
        factors = {name: optimizer.factors(name) for name in SMALL_NET_LAYERS}
        units = len(x) if reduction == "sum" else 1
        expected = quadratic(gradients, delta, factors, damping)
        # δ is a difference of float32 weights (ε |w| / |δ|, 1e-5), the terms of M cancel to about a tenth.
        np.testing.assert_allclose(rule.predicted.asnumpy(), units * expected, rtol=3e-4)
        # The loss is about 1.5, its change about 0.1: ε 1.5 / 0.1 and a few operations.
        np.testing.assert_allclose(rule.ratio.asnumpy(), change / expected, rtol=1e-3)
        ratio = change / expected
        damping *= 0.5 if ratio > 0.75 else 2.0 if ratio < 0.25 else 1.0
        assert float(rule.value.asnumpy()) == damping
    assert compared == 2


def parameter(scale: float) -> ms.Parameter:
    return ms.Parameter(scalar(scale), name="scale", requires_grad=False)


class Unscale(nn.Cell):
    """What a loop with a loss scaler does with the gradients."""

    def __init__(self, scale: float) -> None:
        super().__init__(auto_prefix=False)
        self.scale = scale

    def construct(self, gradients: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        unscaled: tuple[ms.Tensor, ...] = ()
        for gradient in gradients:
            unscaled = (*unscaled, gradient / self.scale)
        return unscaled


SCALE = 1024.0
# The loss is multiplied by 1024: inside the network, by `sens`, or by both.
SCALED: dict[str, tuple[object, float, dict[str, object]]] = {
    "number": (SCALE, 8.0, {"sens": SCALE / 8.0}),
    "parameter": (parameter(SCALE), SCALE, {}),
    "parameter with sens": (parameter(SCALE), 8.0, {"sens": SCALE / 8.0}),
    "scaler": (ms.amp.DynamicLossScaler(SCALE, 2, 1000), SCALE, {}),
    "scale_sense": (1.0, 1.0, {"scale_sense": nn.FixedLossScaleUpdateCell(SCALE)}),
}


@pytest.mark.parametrize("name", SCALED)
def test_the_ratio_does_not_depend_on_the_loss_scale(mode: int, name: str) -> None:
    given, inside, arguments = SCALED[name]
    found = []
    for loss_scale, factor, options in ((given, inside, arguments), (1.0, 1.0, {})):
        net, rule = SmallNet(), LevenbergMarquardt(0.5, interval=1, decrease=0.5)
        optimizer = ms_kfac.KFAC(net, 0.2, damping=rule, loss_scale=loss_scale, **fixed_intervals(1, 1))
        network = nn.WithLossCell(net, ScaledLoss(cross_entropy(), factor))
        cell = ms_kfac.TrainOneStepCell(network, optimizer, **options)
        if isinstance(loss_scale, ms.amp.LossScaler):
            cell.grad_reducer = Unscale(SCALE)
        cell.set_train()
        run(cell, batches(2))
        found.append([float(number.asnumpy()) for number in (rule.predicted, rule.ratio, rule.value)])
    # Powers of two change no digit, but the change of the loss is a small difference.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


class BalancedNoise(nn.Cell):
    """Targets around the outputs whose noise has the second moment (d / 2) I exactly, batch by batch."""

    def __init__(self, samples: int, outputs: int) -> None:
        super().__init__(auto_prefix=False)
        noise = outputs / np.sqrt(2) * np.tile(np.eye(outputs), (samples // outputs, 1))
        self.noise = tensor(noise)

    def construct(self, outputs: ms.Tensor) -> ms.Tensor:
        return outputs + self.noise


def test_a_quadratic_loss_is_predicted_exactly(mode: int, rng: np.random.Generator) -> None:
    """A linear layer under squared error: A ⊗ G is the Hessian, so M misses Δh by ½ λ ‖δ‖² alone."""
    samples, inputs, outputs, damping = 12, 4, 3, 0.3
    net = Perceptron((inputs, outputs))
    x = rng.standard_normal((samples, inputs)).astype(np.float32)
    y = rng.standard_normal((samples, outputs)).astype(np.float32)
    rule = LevenbergMarquardt(damping, interval=1)
    optimizer = ms_kfac.KFAC(
        net, 0.5, damping=rule, fisher="sampled", factor_interval=1, inverse_interval=1, kl_clip=None
    )
    cell = ms_kfac.TrainOneStepCell(
        nn.WithLossCell(net, nn.MSELoss()), optimizer, sample_targets=BalancedNoise(samples, outputs)
    )
    cell.set_train()

    def loss(weights: dict[str, np.ndarray]) -> float:
        f = x @ weights["layers.0.weight"].T + weights["layers.0.bias"]
        return float(((f - y) ** 2).mean())

    before = weights_of(net)
    cell(tensor(x), tensor(y))
    after = weights_of(net)
    change = loss(after) - loss(before)
    assert change < -0.1
    squares = sum(np.sum((after[name] - before[name]) ** 2) for name in before)
    expected = change + 0.5 * damping * squares
    np.testing.assert_allclose(rule.predicted.asnumpy(), expected, rtol=2e-5)
    np.testing.assert_allclose(rule.ratio.asnumpy(), change / expected, rtol=2e-5)
    assert float(rule.value.asnumpy()) == pytest.approx(damping * (19 / 20), rel=1e-6)


def test_a_fixed_rule_is_a_constant_damping(mode: int) -> None:
    """With no room to adapt it is a number: the extra pass leaves weights and moments alone."""
    results = []
    for fixed in (True, False):
        net = SmallNet()
        damping = LevenbergMarquardt(0.1, interval=2, minimum=0.1, maximum=0.1) if fixed else 0.1
        optimizer = ms_kfac.KFAC(net, 0.1, damping=damping, **fixed_intervals(1, 2))
        wrapper = ms_kfac.TrainOneStepCell if fixed else nn.TrainOneStepCell
        cell = wrapper(nn.WithLossCell(net, cross_entropy()), optimizer)
        cell.set_train()
        run(cell, batches(4))
        results.append({p.name: p.asnumpy() for p in net.get_parameters()})
    assert any("moving" in name for name in results[0])
    for name, value in results[1].items():
        np.testing.assert_allclose(results[0][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_present_damping_is_in_the_checkpoint() -> None:
    net = Perceptron((3, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, damping=LevenbergMarquardt(0.7))
    saved = optimizer.parameters_dict()
    assert float(saved["kfac.damping.value"].asnumpy()) == pytest.approx(0.7)
