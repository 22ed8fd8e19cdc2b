"""Recurrent cells in a loop over time: the same outputs, factors over time, updates of dense layers."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

import ms_kfac
from ms_kfac.capture.layer_kinds import describe_layer
from tests.oracle.factors import shared_factors
from tests.oracle.linear_maps import Maps, sides
from tests.oracle.recurrent import gru_step, lstm_step, rnn_step
from tests.support.bank import backward, randomise, tensor

SAMPLES, STEPS, INPUTS, WIDTH = 4, 3, 3, 4


class Cells(nn.Cell):
    """An LSTM, a GRU and an RNN over its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(INPUTS, WIDTH)
        self.gru = nn.GRUCell(WIDTH, WIDTH)
        self.rnn = nn.RNNCell(WIDTH, WIDTH, has_bias=False, nonlinearity="relu")

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        zeros = ops.zeros((x.shape[1], WIDTH), ms.float32)
        state, gated, simple = (zeros, zeros), zeros, zeros + 0.1
        for t in range(STEPS):
            state = self.lstm(x[t], state)
            gated = self.gru(state[0], gated)
            simple = self.rnn(gated, simple)
        return simple


class CellMaps(nn.Cell):
    """The linear maps of a cell, under its names for them."""

    def __init__(self, inputs: int, gates: int, *, bias: bool = True) -> None:
        super().__init__()
        self.ih = nn.Dense(inputs, gates * WIDTH, has_bias=bias)
        self.hh = nn.Dense(WIDTH, gates * WIDTH, has_bias=bias)


class Loops(nn.Cell):
    """The same network of dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = CellMaps(INPUTS, 4), CellMaps(WIDTH, 3)
        self.rnn = CellMaps(WIDTH, 1, bias=False)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        h = ops.zeros((x.shape[1], WIDTH), ms.float32)
        c, gated, simple = h, h, h + 0.1
        for t in range(STEPS):
            i, f, g, o = ops.split(self.lstm.ih(x[t]) + self.lstm.hh(h), WIDTH, 1)
            c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
            h = ops.sigmoid(o) * ops.tanh(c)
            r, z, n = ops.split(self.gru.ih(h), WIDTH, 1)
            hidden_r, hidden_z, hidden_n = ops.split(self.gru.hh(gated), WIDTH, 1)
            n = ops.tanh(n + ops.sigmoid(r + hidden_r) * hidden_n)
            z = ops.sigmoid(z + hidden_z)
            gated = (1 - z) * n + z * gated
            simple = ops.relu(self.rnn.ih(gated) + self.rnn.hh(simple))
        return simple


def squared_error(net: nn.Cell) -> Any:
    def forward(x: ms.Tensor) -> ms.Tensor:
        return ops.square(net(x) - 0.3).sum() / SAMPLES

    return forward


def cell_losses(x: np.ndarray) -> Any:
    """The loss of each sample of `Cells`, x (T, N, d)."""

    def losses(maps: Maps) -> np.ndarray:
        h = c = gated = np.zeros((SAMPLES, WIDTH))
        simple = gated + 0.1
        for t in range(STEPS):
            h, c = lstm_step(maps, "lstm", x[t], h, c)
            gated = gru_step(maps, "gru", h, gated)
            simple = rnn_step(maps, "rnn", gated, simple)
        return ((simple - 0.3) ** 2).sum(1)

    return losses


def as_dense(name: str) -> str:
    """The name of a cell's Parameter in `Loops`."""
    prefix, last = name.split(".")
    letter, part = last.split("_")
    return f"{prefix}.{part}.{letter}"


def test_cells_train_like_dense_layers(mode: int, rng: np.random.Generator) -> None:
    cells, loops = Cells(), Loops()
    randomise(cells, rng)
    start = {as_dense(name): p.asnumpy().copy() for name, p in cells.parameters_and_names()}
    for name, parameter in loops.parameters_and_names():
        parameter.set_data(tensor(start[name]))
    data = [rng.standard_normal((STEPS, SAMPLES, INPUTS)).astype(np.float32) for _ in range(2)]
    plain = cells(tensor(data[0])).asnumpy()
    # Statistics of the last batch alone: the first commit finds how often a layer is called in a pass.
    options: Any = {"damping": 0.1, "factor_interval": 1, "inverse_interval": 1, "factor_decay": 0.0}
    optimizers = [ms_kfac.KFAC(net, 0.1, **options) for net in (cells, loops)]
    np.testing.assert_allclose(cells(tensor(data[0])).asnumpy(), plain, rtol=1e-5, atol=1e-6)
    for x in data:
        weights = {as_dense(name): p.asnumpy().astype(np.float64) for name, p in cells.parameters_and_names()}
        for net, optimizer in zip((cells, loops), optimizers):
            optimizer(backward(squared_error(net), optimizer.parameters, x))
    assert optimizers[0].summary().count("verified") == 7
    expected_sides = sides(cell_losses(data[-1]), weights)
    assert set(expected_sides) == set(optimizers[0].layers)
    for name, (a, g) in expected_sides.items():
        # All steps of a sample are its locations.
        for letter, expected in zip("AG", shared_factors(a, g, f"{name}.bias" in weights)):
            found = optimizers[0].factors(name)[letter]
            # Three steps of three cells, of float32 products of 4 terms each.
            tolerance = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=f"{name} {letter}")
    for name in optimizers[1].layers:
        for factor, expected in optimizers[1].factors(name).items():
            found = optimizers[0].factors(name)[factor]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    for name, parameter in cells.parameters_and_names():
        expected = dict(loops.parameters_and_names())[as_dense(name)].asnumpy()
        assert np.abs(expected - start[as_dense(name)]).max() > 1e-4, name
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=0, atol=2e-5, err_msg=name)


class Other(nn.Cell):
    """The options that `Cells` leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(INPUTS, WIDTH, has_bias=False)
        self.gru = nn.GRUCell(INPUTS, WIDTH, has_bias=False)
        self.rnn = nn.RNNCell(INPUTS, WIDTH)

    def construct(self, x: ms.Tensor, h: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return (*self.lstm(x, (h, h)), self.gru(x, h), self.rnn(x, h))


def test_outputs_stay(mode: int, rng: np.random.Generator) -> None:
    net = Other()
    randomise(net, rng)
    inputs = tensor(rng.standard_normal((SAMPLES, INPUTS))), tensor(rng.standard_normal((SAMPLES, WIDTH)))
    plain = [y.asnumpy() for y in net(*inputs)]
    optimizer = ms_kfac.KFAC(net, 0.1)
    assert len(optimizer.layers) == 6
    for found, expected in zip(net(*inputs), plain):
        # Products of 4 terms in another order.
        np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5, atol=1e-6)


def test_layers_over_time_stay_first_order() -> None:
    described = describe_layer("lstm", nn.LSTM(INPUTS, WIDTH))
    assert described == "LSTM hides the gradients of its gates (a loop over LSTMCell is preconditioned)"
