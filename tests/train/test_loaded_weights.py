"""Weights and state that are loaded between steps are those that the next step uses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import initializer
from mindspore.train import EarlyStopping

import ms_kfac
from tests.support.bank import tensor
from tests.support.loops import Step, as_dataset, cell_step, cross_entropy, functional_step, jit_step, run
from tests.support.methods import fixed_intervals
from tests.support.networks import Perceptron, weights_of

Data = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def data(rng: np.random.Generator) -> Data:
    return [
        (rng.standard_normal((6, 4)).astype(np.float32), rng.integers(0, 3, 6).astype(np.int32))
        for _ in range(4)
    ]


def own_cell_step(net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell) -> Step:
    cell = ms_kfac.TrainOneStepCell(nn.WithLossCell(net, loss), optimizer)
    cell.set_train()
    return cell


def kfac(net: nn.Cell, **options: Any) -> nn.Optimizer:
    return ms_kfac.KFAC(net, 0.1, **{**fixed_intervals(1, 2), **options})


def state_of(*cells: nn.Cell) -> dict[str, Parameter]:
    """Copies of all Parameters, as a checkpoint holds them."""
    parameters = {p.name: p for cell in cells for p in cell.get_parameters()}
    return {name: Parameter(Tensor(p.asnumpy().copy()), name=name) for name, p in parameters.items()}


# In these, MindSpore's set_data leaves the compiled functions on the old buffers.
CASES = [
    (ms.GRAPH_MODE, functional_step, {}),
    (ms.GRAPH_MODE, own_cell_step, {"damping": ms_kfac.LevenbergMarquardt(0.1, interval=1)}),
    (ms.PYNATIVE_MODE, cell_step, {}),
    (ms.PYNATIVE_MODE, jit_step, {}),
]


@pytest.mark.parametrize(
    ("mode", "way", "options"), CASES, indirect=["mode"], ids=[way.__name__ for _, way, _ in CASES]
)
def test_load_param_into_net_between_steps(
    mode: int, way: Callable[..., Step], options: dict[str, Any], data: Data
) -> None:
    """After a step back to an earlier state, the same batches give the same weights."""
    net = Perceptron((4, 5, 3))
    optimizer = kfac(net, **copy.deepcopy(options))
    step = way(net, optimizer, cross_entropy())
    run(step, data[:2])
    state = state_of(net, optimizer)
    run(step, data[2:])
    expected = weights_of(net)
    ms.load_param_into_net(net, state)
    ms.load_param_into_net(optimizer, state)
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, state[name].asnumpy(), err_msg=name)
    run(step, data[2:])
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)
    assert int(optimizer.global_step.asnumpy().item()) == 4


def test_early_stopping_with_restored_weights(mode: int, data: Data) -> None:
    """The best weights are back, and training goes on from them."""
    net = Perceptron((4, 5, 3))
    model = ms_kfac.Model(net, nn.CrossEntropyLoss(), kfac(net), metrics={"loss"})
    # No epoch is better than the first by so much.
    stop = EarlyStopping("eval_loss", min_delta=100.0, patience=1, restore_best_weights=True)
    model.fit(5, as_dataset(data), as_dataset(data), callbacks=[stop], dataset_sink_mode=False)
    best = stop.best_weights_param_dict
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, best[name].asnumpy(), err_msg=name)
    before = model.eval(as_dataset(data), dataset_sink_mode=False)["loss"]
    model.train(1, as_dataset(data), dataset_sink_mode=False)
    assert model.eval(as_dataset(data), dataset_sink_mode=False)["loss"] < before
    for name, weight in weights_of(net).items():
        assert np.abs(weight - best[name].asnumpy()).max() > 1e-3, name


def test_a_learning_rate_that_is_set(mode: int, data: Data) -> None:
    """`set_data`, as callbacks use it, and `ops.assign` both reach the compiled step."""
    net = Perceptron((4, 3))
    optimizer = kfac(net)
    step = jit_step(net, optimizer, cross_entropy())
    run(step, data[:1])
    for nothing in (0, 0.0, Tensor(0.0), Tensor(0.0, ms.float16)):
        optimizer.learning_rate.set_data(nothing)
        before = weights_of(net)
        run(step, data[1:2])
        for name, weight in weights_of(net).items():
            np.testing.assert_array_equal(weight, before[name], err_msg=name)
        ms.ops.assign(optimizer.learning_rate, Tensor(0.1))
        run(step, data[1:2])
        assert all(np.abs(weight - before[name]).max() > 0 for name, weight in weights_of(net).items())


def test_weights_that_are_drawn_again(mode: int, data: Data) -> None:
    net = Perceptron((4, 3))
    optimizer = kfac(net)
    step = functional_step(net, optimizer, cross_entropy())
    run(step, data[:1])
    weight = net.layers[0].weight
    weight.set_data(initializer("ones", weight.shape, weight.dtype))
    np.testing.assert_array_equal(weight.asnumpy(), 1.0)
    x, y = data[1]
    logits = np.repeat(x.sum(axis=1)[:, None], 3, axis=1) + net.layers[0].bias.asnumpy()
    expected = np.log(np.exp(logits - logits[np.arange(6), y][:, None]).sum(axis=1)).mean()
    np.testing.assert_allclose(step(tensor(x), tensor(y)).asnumpy(), expected, rtol=1e-5)


def test_copies_are_ordinary_parameters() -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = Perceptron((4, 3))
    weight = net.layers[0].weight
    ordinary = type(weight)
    kfac(net)
    assert type(weight) is not ordinary and isinstance(weight, Parameter)
    for copied in (
        copy.copy(weight),
        copy.deepcopy(weight),
        weight.clone(),
        pickle.loads(pickle.dumps(weight)),
    ):
        assert type(copied) is ordinary
        np.testing.assert_array_equal(copied.asnumpy(), weight.asnumpy())
    twin = copy.deepcopy(net)
    kept = weight.asnumpy().copy()
    twin.layers[0].weight.set_data(Tensor(np.zeros((3, 4)), ms.float32))
    np.testing.assert_array_equal(weight.asnumpy(), kept)


def test_what_mindspore_refuses_is_still_refused() -> None:
    optimizer = kfac(Perceptron((4, 3)))
    with pytest.raises(TypeError, match="Int32"):
        optimizer.global_step.set_data(0.5)
    with pytest.raises(TypeError, match="Parameter data must be"):
        optimizer.learning_rate.set_data("0.1")
