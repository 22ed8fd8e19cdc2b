"""The ways in which a user trains: they must all give the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore import nn

from tests.support.bank import tensor

Batch = tuple[np.ndarray, np.ndarray]
Step = Callable[[ms.Tensor, ms.Tensor], object]


def cross_entropy(reduction: str = "mean") -> nn.Cell:
    """Softmax cross-entropy with integer labels."""
    return nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction=reduction)


def gradient_function(
    net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell, scale: float = 1.0
) -> Callable[[ms.Tensor, ms.Tensor], tuple[ms.Tensor, tuple[ms.Tensor, ...]]]:
    """(scaled loss, gradients) of one batch."""

    def forward(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        return loss(net(x), y) * scale

    return ms.value_and_grad(forward, None, optimizer.parameters)


def functional_step(net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell, scale: float = 1.0) -> Step:
    """`ms.value_and_grad`, then the optimizer."""
    gradient = gradient_function(net, optimizer, loss, scale)

    def step(x: ms.Tensor, y: ms.Tensor) -> ms.Tensor:
        value, gradients = gradient(x, y)
        optimizer(gradients)
        return value

    return step


def jit_step(net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell) -> Step:
    """The functional step as one `ms.jit` function."""
    return ms.jit(functional_step(net, optimizer, loss))


def cell_step(net: nn.Cell, optimizer: nn.Optimizer, loss: nn.Cell) -> Step:
    """`nn.TrainOneStepCell`."""
    cell = nn.TrainOneStepCell(nn.WithLossCell(net, loss), optimizer)
    cell.set_train()
    return cell


def run(step: Step, data: Sequence[Batch]) -> None:
    """One step a batch."""
    for x, y in data:
        step(tensor(x), tensor(y))


def train_by(way: str, net: nn.Cell, optimizer: nn.Optimizer, data: Sequence[Batch]) -> None:
    """Trains one step a batch by `functional`, `jit`, `cell` or `model`."""
    net.set_train(True)
    loss = cross_entropy()
    if way == "model":
        ms.Model(net, loss, optimizer).train(1, as_dataset(data), dataset_sink_mode=False)
        return
    steps = {"functional": functional_step, "jit": jit_step, "cell": cell_step}
    run(steps[way](net, optimizer, loss), data)


State = dict[str, np.ndarray]


def state_of(*cells: nn.Cell) -> State:
    """Copies of all Parameters, by name."""
    return {p.name: p.asnumpy().copy() for cell in cells for p in cell.get_parameters()}


def checkpoint_of(*cells: nn.Cell) -> dict[str, ms.Parameter]:
    """The content of a checkpoint."""
    return {name: ms.Parameter(ms.Tensor(value), name=name) for name, value in state_of(*cells).items()}


def assert_same_state(found: State, expected: State) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def as_dataset(data: Sequence[Batch]) -> ds.Dataset:
    """The batches, in order, as a `mindspore.dataset`."""
    images = np.concatenate([x for x, _ in data])
    labels = np.concatenate([y for _, y in data])
    return ds.NumpySlicesDataset((images, labels), ["image", "label"], shuffle=False).batch(len(data[0][0]))
