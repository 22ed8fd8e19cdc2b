"""When statistics and inverses are refreshed, and how they are averaged."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.factors import dense_factors
from tests.oracle.kfac import MovingAverage
from tests.oracle.preconditioner import precondition
from tests.support.bank import Bank, linear_loss, randomise, tensor
from tests.support.loops import as_dataset, cross_entropy, train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SMALL_NET_LAYERS, SmallNet, batches

D_IN, D_OUT, STEPS = 3, 2, 7


class OneDense:
    """One Dense layer under a linear loss whose coefficients are an input: g is known at every step."""

    def __init__(self, rng: np.random.Generator, **options: object) -> None:
        self.net = Bank([nn.Dense(D_IN, D_OUT)])
        randomise(self.net, rng)
        self.optimizer = ms_kfac.KFAC(self.net, 0.01, **options)
        net = self.net

        def forward(x: ms.Tensor, c: ms.Tensor) -> ms.Tensor:
            return (net(x)[0] * c).sum() / x.shape[0]

        self.gradient = ms.value_and_grad(forward, None, self.optimizer.parameters)

    def step(self, x: np.ndarray, c: np.ndarray) -> tuple[ms.Tensor, ...]:
        _, gradients = self.gradient(tensor(x), tensor(c))
        self.optimizer(gradients)
        return gradients

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        found = self.optimizer.factors("layers.0")
        return found["A"], found["G"]


def data(rng: np.random.Generator, sizes: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (rng.standard_normal((n, D_IN)), (1 + t) * rng.standard_normal((n, D_OUT)))
        for t, n in enumerate(sizes)
    ]


@pytest.mark.parametrize(("factor_interval", "decay"), [(1, 0.6), (2, 0.95), (3, 0.4)])
def test_moving_average(mode: int, factor_interval: int, decay: float, rng: np.random.Generator) -> None:
    """F ← ε_k F + (1 − ε_k) F_batch over the open steps; nothing changes on the closed ones."""
    layer = OneDense(rng, **fixed_intervals(factor_interval, 2), factor_decay=decay)
    averages = MovingAverage(decay), MovingAverage(decay)
    for t, (x, c) in enumerate(data(rng, [5] * STEPS)):
        if t % factor_interval == 0:
            for average, batch in zip(averages, dense_factors(x, c, True)):
                average.add(batch)
        layer.step(x, c)
        for found, average in zip(layer.factors(), averages):
            # Seven float32 averages of numbers of one order of magnitude.
            np.testing.assert_allclose(
                found, average.value, rtol=1e-5, atol=2e-6 * np.abs(average.value).max(), err_msg=f"step {t}"
            )


def test_unequal_batches_are_weighted_by_their_samples(mode: int, rng: np.random.Generator) -> None:
    """A short last batch counts for its samples: the averages of the sums and of the counts are divided."""
    layer = OneDense(rng, factor_interval=1, inverse_interval=1, factor_decay=0.7)
    sums, counts = (MovingAverage(0.7), MovingAverage(0.7)), MovingAverage(0.7)
    for x, c in data(rng, [8, 2, 5, 1]):
        for total, batch in zip(sums, dense_factors(x, c, True)):
            total.add(len(x) * batch)
        counts.add(np.array(float(len(x))))
        layer.step(x, c)
        for found, total in zip(layer.factors(), sums):
            np.testing.assert_allclose(found, total.value / counts.value, rtol=1e-5, atol=1e-5)


def test_inverses_are_those_of_their_last_refresh(mode: int, rng: np.random.Generator) -> None:
    """With interval 3 the inverses of step 3 serve until step 5, whatever the factors do meanwhile."""
    layer = OneDense(rng, **fixed_intervals(1, 3), damping=0.1)
    used: tuple[np.ndarray, np.ndarray] = (np.zeros(()), np.zeros(()))
    for t, (x, c) in enumerate(data(rng, [5] * STEPS)):
        gradients = layer.step(x, c)
        if t % 3 == 0:
            used = layer.factors()
        weight, bias = (g.asnumpy() for g in gradients)
        U, u = precondition(weight, bias, *used, 0.1)
        found_U, found_u = (g.asnumpy() for g in layer.optimizer.precondition(gradients))
        np.testing.assert_allclose(found_U, U, rtol=1e-3, atol=1e-4 * np.abs(U).max(), err_msg=f"step {t}")
        np.testing.assert_allclose(found_u, u, rtol=1e-3, atol=1e-4 * np.abs(U).max(), err_msg=f"step {t}")


def test_evaluation_does_not_change_the_statistics(mode: int) -> None:
    """`Model.eval` between epochs and bare forward passes, also right before a step that takes statistics."""
    train, held_out = batches(3), batches(2, seed=9)
    results = []
    for evaluates in (False, True):
        net = SmallNet()
        optimizer = ms_kfac.KFAC(net, 0.1, factor_interval=1, inverse_interval=1)
        model = ms.Model(net, cross_entropy(), optimizer, metrics={"accuracy"})
        net.set_train(True)
        for batch in train:
            if evaluates:
                accuracy = model.eval(as_dataset(held_out), dataset_sink_mode=False)["accuracy"]
                assert 0 <= accuracy <= 1
                net.set_train(False)
                net(tensor(held_out[0][0]))
            model.train(1, as_dataset([batch]), dataset_sink_mode=False)
        results.append([optimizer.factors(name) for name in SMALL_NET_LAYERS])
    for plain, evaluated in zip(*results):
        for letter in plain:
            np.testing.assert_allclose(evaluated[letter], plain[letter], rtol=1e-6, atol=1e-8)


def test_closed_steps_change_nothing(mode: int) -> None:
    data = batches(4)
    net = SmallNet()
    optimizer = ms_kfac.KFAC(net, 0.1, **fixed_intervals(100, 100))
    train_by("functional", net, optimizer, data[:1])
    before = [optimizer.factors(name) for name in SMALL_NET_LAYERS]
    train_by("functional", net, optimizer, data[1:])
    for name, old in zip(SMALL_NET_LAYERS, before):
        for letter, factor in optimizer.factors(name).items():
            np.testing.assert_array_equal(factor, old[letter])


def test_backward_passes_that_the_optimizer_never_sees(mode: int, rng: np.random.Generator) -> None:
    """A gradient taken on a closed step, for logging say, does not leak into a later refresh."""
    layer = OneDense(rng, **fixed_intervals(2, 2), factor_decay=0.95)
    (first, stray, second, third) = data(rng, [4, 4, 4, 4])
    layer.step(*first)
    layer.gradient(tensor(stray[0]), tensor(stray[1]))
    layer.step(*second)
    layer.step(*third)
    for found, a, b in zip(layer.factors(), dense_factors(*first, True), dense_factors(*third, True)):
        np.testing.assert_allclose(found, (a + b) / 2, rtol=1e-5, atol=1e-5)


def test_linear_loss_helper_is_a_mean(rng: np.random.Generator) -> None:
    """The helper behind these tests: doubling the batch by repetition leaves its value."""
    net = Bank([nn.Dense(D_IN, D_OUT)])
    x, c = data(rng, [4])[0]
    once = float(linear_loss(net, [c])(tensor(x)))
    twice = float(linear_loss(net, [np.tile(c, (2, 1))])(tensor(np.tile(x, (2, 1)))))
    assert twice == pytest.approx(once, rel=1e-5)
