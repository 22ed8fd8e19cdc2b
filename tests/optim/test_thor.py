"""THOR: split inverses, layers that are kept or stop, and K-FAC where neither bites."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import ms_kfac
from tests.oracle.patches import Geometry
from tests.oracle.preconditioner import damped_factors, gradient_matrix
from tests.support.bank import Bank, backward, convolution, linear_loss, randomise, tensor
from tests.support.loops import cross_entropy, functional_step, train_by
from tests.support.methods import fixed_intervals
from tests.support.networks import SmallNet, batches, weights_of


def block_diagonal(matrix: np.ndarray, split: int) -> np.ndarray:
    """The blocks of `split` rows on the diagonal, the last as long as what is left; zeros elsewhere."""
    block = np.arange(len(matrix)) // split
    # A remainder is a block of its own; only with fewer rows than `split` is there one block.
    return np.where(block[:, None] == block[None, :], matrix, 0.0)


@pytest.mark.parametrize("split", [4, 5, 7, 128])
def test_split_equals_the_dense_solve(mode: int, split: int, rng: np.random.Generator) -> None:
    shape = Geometry(3, 9, (3, 2), stride=(2, 1), pad_mode="same", bias=True, image=(5, 4))
    net = Bank([nn.Dense(10, 8), nn.Dense(8, 11, has_bias=False), convolution(shape, rng)])
    randomise(net, rng)
    x = [rng.standard_normal((30, 10)), rng.standard_normal((30, 8)), rng.standard_normal((30, 3, 5, 4))]
    c = [rng.standard_normal((30, n)) for n in (8, 11)]
    c.append(rng.standard_normal((30, 9, *shape.output_size())))
    optimizer = ms_kfac.THOR(net, 0.1, damping=0.01, split=split)
    gradients = backward(linear_loss(net, c), optimizer.parameters, *x)
    optimizer(gradients)
    found = dict(zip((p.name for p in optimizer.parameters), optimizer.precondition(gradients)))
    raw = {p.name: g.asnumpy() for p, g in zip(optimizer.parameters, gradients)}
    for i in range(3):
        weight, bias = f"layers.{i}.weight", f"layers.{i}.bias"
        factors = optimizer.factors(f"layers.{i}")
        A, G = (block_diagonal(F, split) for F in damped_factors(factors["A"], factors["G"], 0.01))
        dW = gradient_matrix(raw[weight], raw.get(bias))
        U = np.linalg.solve(G, np.linalg.solve(A, dW.T).T)
        # float32 ε times the condition of the damped factors.
        tolerance = 4 * 1.2e-7 * np.linalg.cond(A) * np.linalg.cond(G) * np.abs(U).max()
        assert tolerance < 0.02 * np.abs(U).max()
        weights = U if bias not in raw else U[:, :-1]
        np.testing.assert_allclose(
            found[weight].asnumpy().reshape(len(dW), -1), weights, rtol=0, atol=tolerance, err_msg=weight
        )
        if bias in raw:
            np.testing.assert_allclose(found[bias].asnumpy(), U[:, -1], rtol=0, atol=tolerance)


def test_is_kfac_where_nothing_is_split_or_kept(mode: int) -> None:
    weights = []
    for method, options in ((ms_kfac.KFAC, {}), (ms_kfac.THOR, {"omega1": 0.0})):
        net = SmallNet()
        optimizer = method(net, 0.1, damping=0.01, **fixed_intervals(2, 3), **options)
        train_by("cell", net, optimizer, batches(6))
        weights.append(weights_of(net, np.float32))
    for name, weight in weights[0].items():
        # The same products in another compiled graph.
        np.testing.assert_allclose(weights[1][name], weight, rtol=0, atol=1e-5, err_msg=name)


def test_layers_stop(mode: int) -> None:
    """With a new batch and ω2 above its change every layer stops, statistics included."""
    net = SmallNet()
    net.set_train(True)
    options = {"factor_interval": 1, "inverse_interval": 1, "damping": 0.01, "factor_decay": 0.0}
    optimizer = ms_kfac.THOR(net, 0.0, omega1=1e3, omega2=1e2, **options)
    step = functional_step(net, optimizer, cross_entropy())
    (x, y), (x_later, y_later), *_ = batches(3)
    step(tensor(x), tensor(y))
    assert int(optimizer.inverse_schedule.refreshes.asnumpy()) == 3
    step(tensor(x_later), tensor(y_later))
    assert optimizer.inverse_schedule.stopped.asnumpy().tolist() == [1.0, 1.0, 1.0]
    kept = {layer: optimizer.factors(layer) for layer in ("conv1", "conv2", "head")}
    step(tensor(2 * x), tensor(y))
    step(tensor(2 * x), tensor(y))
    assert int(optimizer.inverse_schedule.refreshes.asnumpy()) == 3
    for layer, factors in kept.items():
        for key, value in factors.items():
            np.testing.assert_array_equal(optimizer.factors(layer)[key], value)


def test_summary_shows_the_pieces() -> None:
    net = nn.SequentialCell(nn.Dense(300, 128), nn.Dense(128, 10))
    text = ms_kfac.THOR(net, 0.1).summary()
    assert "A 301 (2 x 128 + 45), G 128" in text
    assert "A 129 (1 x 128 + 1), G 10" in text


@pytest.mark.parametrize(
    ("option", "value"),
    [("omega1", -1.0), ("omega2", 0.5), ("split", 0), ("split", 1.5), ("inverse_interval", 0)],
)
def test_refused(option: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match=option):
        ms_kfac.THOR(SmallNet(), 0.1, **{option: value})


def test_state_is_in_parameters(mode: int) -> None:
    """What a checkpoint carries: traces of the last refresh, who has stopped, pieces of the inverses."""
    net = SmallNet()
    optimizer = ms_kfac.THOR(net, 0.1, omega2=0.001, factor_interval=1, inverse_interval=1)
    train_by("functional", net, optimizer, batches(2))
    names = {parameter.name for parameter in optimizer.get_parameters()}
    assert {"thor.last_trace", "thor.stopped", "thor.conv1.A_sum", "thor.head.A_last_inverse"} <= names
    assert ms.Tensor(optimizer.inverse_schedule.last_trace).asnumpy().min() > 0
