"""Copies and pickles of a tapped network are plain networks, and the original trains on as before."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import ms_kfac
from tests.support.bank import randomise, tensor
from tests.support.loops import train_by
from tests.support.networks import batches, weights_of

CLASSES = 5
DATA = batches(2)


class Scaled(nn.Conv2d):
    """Its tap stands for the primitive, since it overrides `construct`."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(x)


class Net(nn.Cell):
    """A layer for every way of putting a tap in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Scaled(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.flatten = nn.Flatten()
        self.hidden = nn.Dense(3 * 6 * 5, 6, activation="tanh")
        self.head = nn.Dense(6, CLASSES)
        randomise(self, np.random.default_rng(0), 0.3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.head(self.hidden(self.flatten(self.norm(self.conv(x)))))


def kfac(net: nn.Cell) -> ms_kfac.KFAC:
    return ms_kfac.KFAC(
        net, 0.05, damping=0.1, factor_interval=1, inverse_interval=1, normalization="unit_wise"
    )


def momentum(net: nn.Cell) -> nn.Momentum:
    return nn.Momentum(net.trainable_params(), 0.05, 0.9)


class CellPickler(pickle.Pickler):
    """Pickles primitives as MindSpore deep-copies them; MindSpore 2.10 can't pickle a Cell that has one."""

    def reducer_override(self, value: Any) -> Any:
        return (
            (remake, (type(value), value.init_attrs)) if isinstance(value, ops.Primitive) else NotImplemented
        )


def remake(cls: Any, attributes: dict[str, Any]) -> Any:
    return cls(**attributes)


def pickled(net: nn.Cell) -> nn.Cell:
    file = io.BytesIO()
    CellPickler(file).dump(net)
    return pickle.loads(file.getvalue())


COPY = pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])


@COPY
def test_copies_are_the_untapped_layers(duplicate: Callable[[nn.Cell], nn.Cell]) -> None:
    plain, net = Net(), Net()
    optimizer = kfac(net)
    copied = duplicate(net)
    for (name, cell), (_, expected) in zip(copied.cells_and_names(), plain.cells_and_names()):
        assert type(cell) is type(expected), name
        assert cell.__dict__.keys() == expected.__dict__.keys(), name
        for key, value in expected.__dict__.items():
            assert type(cell.__dict__[key]) is type(value), (name, key)
    assert copied.hidden.activation_flag
    assert not any(copied.head.weight is parameter for parameter in net.get_parameters())
    reached = reachable(copied)
    assert not any(id(value) in reached for block in optimizer.blocks for value in block.staged)


def reachable(root: object) -> set[int]:
    """Everything that hangs on an object, down to modules and classes."""
    seen, left = {id(root)}, [root]
    while left:
        for value in gc.get_referents(left.pop()):
            if id(value) not in seen and not isinstance(value, type) and type(value).__name__ != "module":
                if callable(value) and hasattr(value, "__globals__"):
                    continue
                seen.add(id(value))
                left.append(value)
    return seen


def test_reachable_finds_the_optimizer_of_a_tapped_network() -> None:
    """Or the last assertion of the test before could not fail."""
    net = Net()
    optimizer = kfac(net)
    assert id(optimizer.blocks[0].staged[0]) in reachable(net)


@COPY
@pytest.mark.parametrize("create", [momentum, kfac])
def test_a_copy_trains_as_a_plain_network(
    mode: int, duplicate: Callable[[nn.Cell], nn.Cell], create: Callable[[nn.Cell], nn.Optimizer]
) -> None:
    """And the original, copied between two steps, as one that was never copied."""
    expected = Net()
    expected_optimizer = kfac(expected)
    net = Net()
    optimizer = kfac(net)
    for trained, by in ((expected, expected_optimizer), (net, optimizer)):
        train_by("functional", trained, by, DATA[:1])

    copied = duplicate(net)
    reference = Net()
    for parameter, value in zip(reference.get_parameters(), net.get_parameters()):
        parameter.set_data(ms.Tensor(value.asnumpy().copy()))
    for trained in (copied, reference):
        train_by("functional", trained, create(trained), DATA)
    for name, weight in weights_of(reference).items():
        np.testing.assert_array_equal(weights_of(copied)[name], weight, err_msg=name)

    for trained, by in ((expected, expected_optimizer), (net, optimizer)):
        train_by("functional", trained, by, DATA[1:])
    for name, weight in weights_of(expected).items():
        np.testing.assert_array_equal(weights_of(net)[name], weight, err_msg=name)


@pytest.mark.parametrize("name", ["conv", "norm", "hidden", "head"])
def test_a_shallow_copy_of_a_layer_is_untapped(name: str) -> None:
    net = Net()
    optimizer = kfac(net)
    layer, plain = getattr(net, name), getattr(Net(), name)
    copied = copy.copy(layer)
    assert type(copied) is type(plain)
    assert copied.__dict__.keys() == plain.__dict__.keys()
    assert copied.trainable_params()[0] is layer.trainable_params()[0]
    train_by("functional", net, optimizer, DATA[:1])
    assert next(iter(optimizer.factors(name).values())).any()


class Own(nn.Dense):
    """A layer with copies and pickles of its own."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)
        self.size = size

    def __copy__(self) -> Own:
        return type(self)(self.size)

    def __deepcopy__(self, memo: dict[int, Any]) -> Own:
        return type(self)(self.size)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return type(self), (self.size,)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))]
)
def test_a_layer_that_copies_itself_still_does(duplicate: Callable[[nn.Cell], nn.Cell]) -> None:
    net = nn.SequentialCell(Own(4))
    ms_kfac.KFAC(net, 0.1)
    assert type(net[0]) is not Own
    copied = duplicate(net[0])
    assert type(copied) is Own
    assert copied.__dict__.keys() == Own(4).__dict__.keys()
    assert type(net[0]) is not Own


class Uncopyable(nn.Dense):
    def __deepcopy__(self, memo: dict[int, Any]) -> Uncopyable:
        raise RuntimeError("never copied")


def test_a_copy_that_fails_leaves_the_tap_in() -> None:
    net = nn.SequentialCell(Uncopyable(4, CLASSES))
    optimizer = ms_kfac.KFAC(net, 0.1)
    with pytest.raises(RuntimeError, match="never copied"):
        copy.deepcopy(net)
    train_by("functional", net, optimizer, [(np.ones((8, 4), np.float32), DATA[0][1])])
    assert optimizer.factors("0")["G"].any()


def test_a_tapped_layer_refuses_pickling_as_a_plain_one_does() -> None:
    net = nn.SequentialCell(nn.Dense(4, CLASSES))
    with pytest.raises(TypeError) as plain:
        pickle.dumps(net[0])
    ms_kfac.KFAC(net, 0.1)
    with pytest.raises(TypeError) as tapped:
        pickle.dumps(net[0])
    assert str(tapped.value) == str(plain.value)


def test_outputs_of_a_copy_stay(mode: int) -> None:
    net = Net()
    kfac(net)
    x = tensor(DATA[0][0])
    np.testing.assert_array_equal(copy.deepcopy(net)(x).asnumpy(), net(x).asnumpy())
