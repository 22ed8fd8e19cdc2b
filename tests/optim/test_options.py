"""Every bad option is refused at construction, by name, with the value and what is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from mindspore import nn

import ms_kfac

# Option, refused value, a piece of what the message says is accepted.
BAD = [
    ("learning_rate", -0.1, "non-negative"),
    ("learning_rate", "0.1", "number"),
    ("learning_rate", [], "number"),
    ("learning_rate", float("nan"), "number"),
    ("momentum", -0.1, "0"),
    ("momentum", float("nan"), "0"),
    ("momentum", "0.9", "number"),
    ("nesterov", "yes", "True or False"),
    ("weight_decay", -1.0, "0"),
    ("decoupled_weight_decay", 1, "True or False"),
    ("damping", 0.0, "positive"),
    ("damping", -1e-3, "positive"),
    ("damping", float("inf"), "positive"),
    ("damping", "1e-3", "positive"),
    ("damping", [1e-3, 0.0], "positive"),
    ("factor_decay", -0.1, "0"),
    ("factor_decay", 1.5, "1"),
    ("factor_interval", 0, "1"),
    ("factor_interval", 2.5, "int"),
    ("factor_interval", True, "int"),
    ("inverse_interval", 0, "1"),
    ("inverse_interval", "100", "int"),
    ("kl_clip", 0.0, "positive"),
    ("kl_clip", -1e-3, "positive"),
    ("kl_clip", ms_kfac.LevenbergMarquardt(0.1), "damping"),
    ("sharing", "both", "'expand'"),
    ("reduction", "none", "'mean'"),
    ("loss_scale", 0.0, "0"),
    ("loss_scale", -2.0, "0"),
    ("accumulation_steps", 0, "1"),
    ("accumulation_steps", 1.5, "int"),
    ("skip", "conv1", "list"),
    ("skip", ("(",), "regular expression"),
]


@pytest.mark.parametrize(("option", "value", "accepted"), BAD, ids=[f"{o}={v!r}" for o, v, _ in BAD])
def test_refused_by_name(option: str, value: object, accepted: str) -> None:
    arguments = {"learning_rate": 0.1, option: value}
    with pytest.raises((TypeError, ValueError)) as error:
        ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), **arguments)
    message = str(error.value)
    shown = value[-1] if option in ("damping", "skip") and isinstance(value, (list, tuple)) else value
    assert option in message
    assert repr(shown) in message or str(shown) in message
    # What is accepted, apart from the value itself.
    assert accepted in message.replace(repr(shown), "").replace(str(shown), "")


def test_refused_options_do_not_change_the_network() -> None:
    """A refusal comes before tapping: the same net can be used at once."""
    net = nn.SequentialCell(nn.Dense(2, 2))
    kinds = [type(cell) for _, cell in net.cells_and_names()]
    with pytest.raises(ValueError, match="damping"):
        ms_kfac.KFAC(net, 0.1, damping=-1.0)
    assert [type(cell) for _, cell in net.cells_and_names()] == kinds


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="dampling"):
        ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1, dampling=0.1)


def test_options_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1, None, 0.9)


def test_a_net_is_needed() -> None:
    with pytest.raises(TypeError, match="Cell"):
        ms_kfac.KFAC(nn.Dense(2, 2).trainable_params(), 0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"kl_clip": None},
        {"factor_interval": 1, "inverse_interval": 1},
        {"momentum": 0.0},
        {"factor_decay": 0.0},
        {"damping": [1e-2, 1e-3]},
        {"kl_clip": [1e-2, 1e-3]},
        {"skip": []},
        {"learning_rate": 0.0},
        {"learning_rate": [0.1, 0.2]},
    ],
    ids=str,
)
def test_accepted(options: dict[str, object]) -> None:
    ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), **{"learning_rate": 0.1, **options})


@pytest.mark.parametrize(
    "given",
    [
        lambda net: net.get_parameters(),
        lambda net: [{"params": net.get_parameters()}],
        lambda net: ({"params": iter([p]), "lr": 0.2} for p in net.trainable_params()),
        lambda net: [{"params": net.trainable_params()}, {"order_params": net.get_parameters()}],
    ],
    ids=["parameters", "one_group", "groups", "order"],
)
def test_generators_are_read_once(given: Callable[[nn.Cell], Any]) -> None:
    """nn.Momentum reads the generator of a group twice, and trains nothing."""
    net = nn.SequentialCell(nn.Dense(3, 2), nn.Dense(2, 2))
    optimizer = ms_kfac.KFAC(net, 0.1, params=given(net))
    assert [p.name for p in optimizer.parameters] == [p.name for p in net.trainable_params()]
    assert optimizer.layers == ("0", "1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda net: net.parameters_dict(), "params must be an iterable of Parameters"),
        (lambda net: [*net.parameters_and_names()], "params must be an iterable of Parameters"),
        (lambda net: net[0].weight, "params must be an iterable of Parameters"),
        (lambda net: [{"params": net[0].weight}], "params: 'params' of a group must be an iterable of Param"),
        (lambda net: [{"params": iter(["0.weight"])}], "group must hold only Parameters, got '0.weight'"),
        (lambda net: [{"params": []}], "'params' of a group must hold at least one Parameter"),
    ],
    ids=["dict", "pairs", "Parameter", "Parameter_in_group", "names", "empty"],
)
def test_refused_parameters(given: Callable[[nn.Cell], Any], message: str) -> None:
    net = nn.SequentialCell(nn.Dense(2, 2))
    with pytest.raises((TypeError, ValueError), match=message):
        ms_kfac.KFAC(net, 0.1, params=given(net))


def test_factors_of_an_unknown_layer_names_those_there_are() -> None:
    optimizer = ms_kfac.KFAC(nn.SequentialCell(nn.Dense(2, 2)), 0.1)
    with pytest.raises((KeyError, ValueError), match=re.escape("conv7")) as error:
        optimizer.factors("conv7")
    assert "0" in str(error.value)
