"""ms_kfac.Model: a drop-in that serves the further passes and evaluates averaged weights."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.train import Callback

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import as_dataset, cross_entropy
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, SmallNet, batches, weights_of


def separable(count: int = 8, size: int = 16) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three clouds, far enough apart to be learnt in a few steps."""
    rng = np.random.default_rng(4)
    centres = 2.0 * rng.standard_normal((3, 4))
    labels = rng.integers(0, 3, (count, size)).astype(np.int32)
    return [((centres[y] + rng.standard_normal((size, 4))).astype(np.float32), y) for y in labels]


class Losses(Callback):
    """The loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_step_end(self, run_context: object) -> None:
        """Keep it."""
        self.losses.append(float(run_context.original_args().net_outputs.asnumpy()))  # type: ignore[attr-defined]


def test_from_end_to_end(mode: int) -> None:
    """Sampled Fisher, adaptive damping and averaged weights at once; train, eval, predict."""
    net = Perceptron((4, 8, 3))
    data = as_dataset(separable())
    ms.set_seed(5)
    damping = ms_kfac.LevenbergMarquardt(0.1, interval=2)
    optimizer = ms_kfac.KFAC(
        net, 0.3, fisher="sampled", damping=damping, kl_clip=1e-3, averaging=0.5, **fixed_intervals(2, 2)
    )
    model = ms_kfac.Model(net, cross_entropy(), optimizer, metrics={"accuracy", "loss"})
    assert isinstance(model.train_network, ms_kfac.TrainOneStepCell)
    losses = Losses()
    model.train(2, data, callbacks=[losses], dataset_sink_mode=False)
    assert len(losses.losses) == 16
    assert np.mean(losses.losses[-4:]) < 0.5 * np.mean(losses.losses[:2])
    assert float(damping.value.asnumpy()) != pytest.approx(0.1)

    before = weights_of(net)
    results = model.eval(data, dataset_sink_mode=False)
    with optimizer.averaged_weights():
        averaged = weights_of(net)
        x = tensor(separable()[0][0])
        expected = net(x).asnumpy()
    np.testing.assert_array_equal(model.predict(x).asnumpy(), expected)
    assert np.abs(expected - net(x).asnumpy()).max() > 1e-4
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, before[name])
    assert results["accuracy"] > 0.8
    assert results["loss"] == pytest.approx(mean_loss(averaged), rel=1e-4)
    assert results["loss"] != pytest.approx(mean_loss(before), rel=1e-4)


def mean_loss(weights: dict[str, np.ndarray]) -> float:
    """Of the clouds, in float64."""
    x = np.concatenate([x for x, _ in separable()]).astype(np.float64)
    y = np.concatenate([y for _, y in separable()])
    hidden = np.tanh(x @ weights["layers.0.weight"].T + weights["layers.0.bias"])
    logits = hidden @ weights["layers.1.weight"].T + weights["layers.1.bias"]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]))


def test_fit_evaluates_the_averages() -> None:
    """The evaluation inside `fit` is a path of its own in MindSpore."""
    net = Perceptron((4, 8, 3))
    data = as_dataset(separable())
    seen: list[float] = []

    class Watch(Callback):
        def on_eval_end(self, run_context: object) -> None:
            seen.append(run_context.original_args().metrics["loss"])  # type: ignore[attr-defined]

    optimizer = ms_kfac.KFAC(net, 0.3, averaging=0.9)
    model = ms_kfac.Model(net, cross_entropy(), optimizer, metrics={"loss"})
    model.fit(1, data, data, callbacks=[Watch()], dataset_sink_mode=False, valid_dataset_sink_mode=False)
    with optimizer.averaged_weights():
        averaged = mean_loss(weights_of(net))
    assert seen == [pytest.approx(averaged, rel=1e-4)]
    assert mean_loss(weights_of(net)) != pytest.approx(averaged, rel=1e-3)


def test_otherwise_it_is_a_drop_in(mode: int) -> None:
    """mindspore.train.Model gives the same weights, under a loss scale; eval is on the weights themselves."""
    results = []
    for kind in (ms.Model, ms_kfac.Model):
        data = as_dataset(batches(3))
        net = SmallNet()
        optimizer = ms_kfac.KFAC(
            net, 0.1, damping=0.1, factor_interval=1, inverse_interval=1, loss_scale=128.0
        )
        scale = ms.FixedLossScaleManager(128.0, drop_overflow_update=False)
        model = kind(net, cross_entropy(), optimizer, metrics={"loss"}, loss_scale_manager=scale)
        model.train(1, data, dataset_sink_mode=False)
        results.append((weights_of(net), model.eval(data, dataset_sink_mode=False)["loss"]))
    for name, weight in results[0][0].items():
        np.testing.assert_array_equal(results[1][0][name], weight)
    assert results[0][1] == results[1][1]


def test_loss_scale_reaches_the_sampled_pass(mode: int) -> None:
    """G does not depend on the scale: 1024 twice too often or too seldom would be a factor of 10⁶."""
    traces = []
    for factor in (1.0, 1024.0):
        ms.set_seed(8)
        net = Perceptron((4, 3))
        optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled", loss_scale=factor)
        manager = ms.FixedLossScaleManager(factor, drop_overflow_update=False)
        model = ms_kfac.Model(net, cross_entropy(), optimizer, loss_scale_manager=manager)
        model.train(1, as_dataset(separable(1)), dataset_sink_mode=False)
        traces.append(np.trace(optimizer.factors("layers.0")["G"]))
    assert traces[0] == pytest.approx(traces[1], rel=1e-5)


def test_own_targets(rng: np.random.Generator) -> None:
    """`sample_targets` reaches the cell; without it this loss is refused by name."""
    net = Perceptron((4, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, fisher="sampled")
    with pytest.raises(TypeError, match="L1Loss"):
        ms_kfac.Model(net, nn.L1Loss(), optimizer)
    model = ms_kfac.Model(net, nn.L1Loss(), optimizer, sample_targets="squared_error")
    x = rng.standard_normal((8, 4)).astype(np.float32)
    model.train(1, as_dataset([(x, rng.standard_normal((8, 3)).astype(np.float32))]), dataset_sink_mode=False)
    # |f - y| averaged over three outputs: g is ±1/3.
    np.testing.assert_allclose(np.diag(optimizer.factors("layers.0")["G"]), 1 / 9, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"fisher": "sampled"}, {"damping": ms_kfac.LevenbergMarquardt(1.0)}], ids=str
)
def test_cells_that_can_not_be_served(options: dict[str, object]) -> None:
    """Boost replaces our training cell by its own."""
    net = Perceptron((4, 3))
    optimizer = ms_kfac.KFAC(net, 0.1, **options)
    with pytest.raises(ValueError, match=r"boost_level='O1'.*boost_level='O0'"):
        ms_kfac.Model(net, cross_entropy(), optimizer, boost_level="O1")


def test_a_first_order_optimizer(mode: int) -> None:
    results = []
    for kind in (ms.Model, ms_kfac.Model):
        data = as_dataset(separable(3))
        net = Perceptron((4, 3))
        model = kind(net, cross_entropy(), nn.Momentum(net.trainable_params(), 0.1, 0.9), metrics={"loss"})
        model.train(1, data, dataset_sink_mode=False)
        model.eval(data, dataset_sink_mode=False)
        results.append(weights_of(net))
    for name, weight in results[0].items():
        np.testing.assert_array_equal(results[1][name], weight)


def test_without_an_optimizer_it_evaluates() -> None:
    net = Perceptron((4, 3))
    model = ms_kfac.Model(net, cross_entropy(), metrics={"loss"})
    assert np.isfinite(model.eval(as_dataset(separable(1)), dataset_sink_mode=False)["loss"])
