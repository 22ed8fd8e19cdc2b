"""The pass over sampled targets: statistics converge to the exact Fisher, and nothing else changes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from ms_kfac.train.sampled_targets import GaussianTargets
from tests.oracle.factors import dense_factors
from tests.support.bank import tensor
from tests.support.loops import cell_step, cross_entropy, functional_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import (
    SMALL_NET_LAYERS,
    Perceptron,
    SmallNet,
    batches,
    weights_of,
)

SAMPLES = 4096
# A mean that is right lies within five standard errors but once in 10⁶ cases.
ERRORS = 5.0


def one_sampled_step(
    net: nn.Cell,
    loss: nn.Cell,
    x: np.ndarray,
    y: np.ndarray,
    sens: float | None = None,
    targets: object = None,
    **options: object,
) -> nn.Optimizer:
    """The optimizer after one step with the learning rate 0."""
    ms.set_seed(21)
    optimizer = ms_kfac.KFAC(net, 0.0, fisher="sampled", **options)
    network = nn.WithLossCell(net, loss)
    cell = ms_kfac.TrainOneStepCell(network, optimizer, sens, sample_targets=targets)  # type: ignore[arg-type]
    cell.set_train()
    cell(tensor(x), tensor(y))
    return optimizer


def assert_mean(found: np.ndarray, exact: np.ndarray, square: np.ndarray, samples: int) -> None:
    """`found` is a mean over samples with the given mean and second moment."""
    error = np.sqrt(np.maximum(square - exact**2, 0) / samples)
    # The error of sampling, and float32 rounding of the mean.
    assert np.all(np.abs(found - exact) <= ERRORS * error + 1e-5 * np.abs(exact).max()), (found, exact)
    assert np.abs(found - exact).max() > 0


@pytest.mark.parametrize(
    ("loss", "reduction", "scale"),
    [
        (lambda: nn.CrossEntropyLoss(), "mean", None),
        (lambda: nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="sum"), "sum", None),
        (lambda: nn.SoftmaxCrossEntropyWithLogits(sparse=False, reduction="mean"), "mean", 1024.0),
    ],
    ids=["mean", "sum_sparse", "one_hot_scaled"],
)
def test_cross_entropy(
    mode: int, loss: Callable[[], nn.Cell], reduction: str, scale: float | None, rng: np.random.Generator
) -> None:
    """G of the last layer is E[diag(p) − p pᵀ], though every label is the least likely class."""
    net = Perceptron((3, 4))
    x = rng.standard_normal((SAMPLES, 3))
    weights = weights_of(net)
    z = x.astype(np.float32) @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    labels = p.argmin(axis=1).astype(np.int32)
    criterion = loss()
    one_hot = getattr(criterion, "sparse", True) is False
    optimizer = one_sampled_step(
        net,
        criterion,
        x,
        np.eye(4)[labels] if one_hot else labels,
        scale,
        reduction=reduction,
        loss_scale=1.0 if scale is None else scale,
    )
    factors = optimizer.factors("layers.0")

    g = p[:, None, :] - np.eye(4)  # (sample, label, class)
    products = g[:, :, :, None] * g[:, :, None, :]
    exact = np.einsum("nc,ncij->nij", p, products)
    np.testing.assert_allclose(exact, np.einsum("ni,ij->nij", p, np.eye(4)) - p[:, :, None] * p[:, None, :])
    # Labels are drawn given x: the error is that of the draws, whose variance is a sample's own.
    variance = (np.einsum("nc,ncij->nij", p, products**2) - exact**2).mean(axis=0)
    mean = exact.mean(axis=0)
    assert_mean(factors["G"], mean, variance + mean**2, SAMPLES)
    A, empirical = dense_factors(x, p - np.eye(4)[labels], True)
    # One pass is counted, not two: sums over 4096 samples in float32.
    np.testing.assert_allclose(factors["A"], A, rtol=1e-4, atol=1e-4)
    assert np.abs(empirical - mean).max() > 20 * np.sqrt(variance.max() / SAMPLES)


class HalfSquaredError(nn.Cell):
    """½ ‖f − y‖², averaged over the samples."""

    def construct(self, f: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return 0.5 * ((f - y) ** 2).sum(axis=1).mean()


@pytest.mark.parametrize(
    ("loss", "reduction", "targets", "curvature"),
    [
        (nn.MSELoss, "mean", None, 2 / 3),
        (lambda: nn.MSELoss("sum"), "sum", None, 2.0),
        (HalfSquaredError, "mean", "squared_error", 1.0),
        (HalfSquaredError, "mean", GaussianTargets(4.0), 4.0),
    ],
    ids=["mean", "sum", "named", "own"],
)
def test_deep_linear_net(
    mode: int,
    loss: Callable[[], nn.Cell],
    reduction: str,
    targets: object,
    curvature: float,
    rng: np.random.Generator,
) -> None:
    """G of every layer is c Wᵀ W with W what follows it and c the second derivative of a sample's loss.

    The last case draws with four times the variance of the likelihood: G shows whose Cell drew. The labels
    are thousands of deviations away.
    """
    widths = (4, 5, 3)
    net = Perceptron(widths, linear=True)
    weights = weights_of(net)
    x = rng.standard_normal((SAMPLES, 4))
    y = np.full((SAMPLES, 3), 5e3)
    optimizer = one_sampled_step(net, loss(), x, y, targets=targets, reduction=reduction)
    downstream = np.eye(3)
    for name in ("layers.1", "layers.0"):
        factors = optimizer.factors(name)
        G = curvature * downstream.T @ downstream
        # Normal g: E[(g_i g_j)²] = G_ii G_jj + 2 G_ij².
        assert_mean(factors["G"], G, np.outer(np.diag(G), np.diag(G)) + 2 * G**2, SAMPLES)
        downstream = downstream @ weights[f"{name}.weight"]
    np.testing.assert_allclose(optimizer.factors("layers.0")["A"], dense_factors(x, y, True)[0], atol=1e-4)


class GivenTargets(nn.Cell):
    """Draws nothing: hands out fixed targets, and counts how often."""

    def __init__(self, labels: np.ndarray) -> None:
        super().__init__(auto_prefix=False)
        self.labels = tensor(labels)
        self.calls = ms.Parameter(tensor(np.zeros(())), name="calls", requires_grad=False)

    def construct(self, outputs: ms.Tensor) -> ms.Tensor:
        return ops.depend(self.labels, ops.assign_add(self.calls, tensor_one))


tensor_one = ms.Tensor(1.0, ms.float32)


def five_steps(net: SmallNet, cell: nn.Cell, optimizer: nn.Optimizer) -> dict[str, np.ndarray]:
    """Losses, weights, moving moments and factors after five steps on one batch."""
    x, y = batches(1)[0]
    cell.set_train()
    losses = [float(cell(tensor(x), tensor(y)).asnumpy()) for _ in range(5)]
    state = {"losses": np.array(losses), **{p.name: p.asnumpy() for p in net.get_parameters()}}
    for layer in SMALL_NET_LAYERS:
        state |= {f"{layer} {letter}": factor for letter, factor in optimizer.factors(layer).items()}
    return state


OPTIONS = {"damping": 0.1, **fixed_intervals(2, 2)}


@functools.cache
def empirical(mode: int) -> dict[str, np.ndarray]:
    """The empirical Fisher under MindSpore's own cell: the same for every test here, run once a mode."""
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.1, **OPTIONS)
    return five_steps(net, nn.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer), optimizer)


@pytest.mark.parametrize(("reduction", "scale"), [("mean", None), ("sum", 128.0)])
def test_with_the_true_labels_it_is_the_empirical_one(mode: int, reduction: str, scale: float | None) -> None:
    """Weights, factors, moving moments; and the pass is made on the steps that take statistics, only."""
    x, y = batches(1)[0]
    net = SmallNet()
    factor = 1.0 if scale is None else scale
    optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", reduction=reduction, loss_scale=factor, **OPTIONS)
    network = nn.WithLossCell(net, cross_entropy(reduction))
    targets = GivenTargets(y)
    cell = ms_kfac.TrainOneStepCell(network, optimizer, scale, sample_targets=targets)
    found = five_steps(net, cell, optimizer)
    assert float(targets.calls.asnumpy()) == 3
    if reduction == "sum":
        found["losses"] /= len(x)
    assert any("moving" in name for name in found)
    for name, value in empirical(mode).items():
        # The same arithmetic in another order, behind damped inverses of condition about 1e2.
        tolerance = 1e-4 * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("step", [cell_step, functional_step])
def test_refused_without_this_cell(mode: int, step: Callable[..., object]) -> None:
    """The statistics would stay empty without a word otherwise."""
    net = Perceptron((3, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled")
    with pytest.raises(RuntimeError, match=r"ms_kfac\.TrainOneStepCell"):
        run(step(net, optimizer, cross_entropy()), [(np.ones((2, 3)), np.zeros(2, np.int32))])  # type: ignore[arg-type]


@pytest.mark.parametrize("sens", [None, 64.0])
def test_other_optimizers_train_as_before(mode: int, sens: float | None) -> None:
    data = [(x.reshape(len(x), -1), y) for x, y in batches(3)]
    results = []
    for wrapper in (ms_kfac.TrainOneStepCell, nn.TrainOneStepCell):
        net = Perceptron((60, 5))
        optimizer = nn.Momentum(net.trainable_params(), 0.01, 0.9)
        cell = wrapper(nn.WithLossCell(net, cross_entropy()), optimizer, sens)
        cell.set_train()
        losses = [float(cell(tensor(x), tensor(y)).asnumpy()) for x, y in data]
        results.append((losses, weights_of(net)))
    assert results[0][0] == results[1][0]
    for name, value in results[1][1].items():
        np.testing.assert_array_equal(results[0][1][name], value)


def test_names_for_checkpoints() -> None:
    """A checkpoint of either cell loads into the other."""
    names = []
    for wrapper in (ms_kfac.TrainOneStepCell, nn.TrainOneStepCell):
        net = SmallNet()
        optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", damping=ms_kfac.LevenbergMarquardt(1.0))
        cell = wrapper(nn.WithLossCell(net, cross_entropy()), optimizer)
        names.append(sorted(cell.parameters_dict()))
    assert names[0] == names[1]
    assert len(names[0]) == len(set(names[0]))


def test_no_layers_no_pass(mode: int) -> None:
    """All layers skipped: nothing to take statistics of, so no target is drawn."""
    net = Perceptron((3, 2))
    with pytest.warns(UserWarning, match="no layer of the network is preconditioned"):
        optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", skip=["."])
    targets = GivenTargets(np.zeros(2, np.int32))
    network = nn.WithLossCell(net, cross_entropy())
    cell = ms_kfac.TrainOneStepCell(network, optimizer, sample_targets=targets)
    cell.set_train()
    run(cell, [(np.ones((2, 3)), np.zeros(2, np.int32))] * 2)
    assert float(targets.calls.asnumpy()) == 0


class OwnLossCell(nn.Cell):
    """Loss inside, with no loss function to be found."""

    def __init__(self, net: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return ((self.net(x) - y) ** 2).mean()


def test_sampled_targets_refuse_unknown_losses_and_cells() -> None:
    net = Perceptron((3, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled")
    with pytest.raises(TypeError, match="OwnLossCell"):
        ms_kfac.TrainOneStepCell(OwnLossCell(net), optimizer)
    with pytest.raises(TypeError, match="HalfSquaredError"):
        ms_kfac.TrainOneStepCell(nn.WithLossCell(net, HalfSquaredError()), optimizer)
    # Neither refusal counts as a training cell.
    assert not optimizer.has_train_cell


def test_a_layer_run_alone_between_steps(mode: int) -> None:
    """What it saw of its gate is forgotten when the gate opens: PyNative taps keep it for a pass."""
    net = Perceptron((3, 4, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", factor_interval=1)
    cell = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, cross_entropy()), optimizer)
    cell.set_train()
    net.layers[1](tensor(np.ones((2, 4))))
    run(cell, [(np.ones((2, 3)), np.zeros(2, np.int32))])
    for name in ("layers.0", "layers.1"):
        assert optimizer.factors(name)["G"].any(), name


class TwoInputs(nn.Cell):
    """A loss cell of the user's own: two inputs and a target."""

    def __init__(self, backbone: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self._backbone = backbone
        self._loss_fn = nn.CrossEntropyLoss()

    def construct(self, x: ms.Tensor, scale: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return self._loss_fn(self._backbone(x, scale), y)


class ScaledDense(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Dense(3, 4)

    def construct(self, x: ms.Tensor, scale: ms.Tensor) -> ms.Tensor:
        return self.dense(x * scale)


def test_a_network_with_two_inputs(mode: int, rng: np.random.Generator) -> None:
    net = ScaledDense()
    optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled")
    cell = ms_kfac.TrainOneStepCell(TwoInputs(net), optimizer)
    cell.set_train()
    x = rng.standard_normal((6, 3)).astype(np.float32)
    cell(tensor(x), tensor(np.array(2.0)), tensor(np.zeros(6, np.int32)))
    A = dense_factors(2.0 * x, np.zeros((6, 4)), True)[0]
    np.testing.assert_allclose(optimizer.factors("dense")["A"], A, rtol=1e-5, atol=1e-6)
    assert optimizer.factors("dense")["G"].any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("amp_level", ["O0", "O2"])
def test_a_loss_without_reduction_has_the_gradient_of_the_sum(reduction: str, amp_level: str) -> None:
    """The default of `nn.SoftmaxCrossEntropyWithLogits`."""
    net = Perceptron((3, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, reduction=reduction)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ms_kfac.Model(net, nn.SoftmaxCrossEntropyWithLogits(sparse=True), optimizer, amp_level=amp_level)
    told = [str(warning.message) for warning in caught if "reduction" in str(warning.message)]
    expected = [
        "reduction='mean' was passed to KFAC, but SoftmaxCrossEntropyWithLogits has reduction='none', whose "
        "gradient is of the sum: statistics and steps are wrong by a factor of the batch size; pass "
        "reduction='sum' to the optimizer"
    ]
    assert told == (expected if reduction == "mean" else [])


class MeanOfSampleLosses(TwoInputs):
    """Averages a loss without reduction itself."""

    def __init__(self, backbone: nn.Cell) -> None:
        super().__init__(backbone)
        self._loss_fn = nn.CrossEntropyLoss(reduction="none")

    def construct(self, x: ms.Tensor, scale: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return self._loss_fn(self._backbone(x, scale), y).mean()


def test_a_cell_may_average_a_loss_without_reduction() -> None:
    net = ScaledDense()
    ms_kfac.TrainOneStepCell(MeanOfSampleLosses(net), ms_kfac.KFAC(net, 0.1))
