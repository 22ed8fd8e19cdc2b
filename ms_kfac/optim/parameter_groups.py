"""Validation of the option ``params``: Parameters, or parameter groups in the form of ``nn.Momentum``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mindspore import Parameter, Tensor, nn

from ms_kfac.optim.options import check_learning_rate, check_weight_decay
from ms_kfac.values import check_flag, shown

_KEYS = ("params", "lr", "weight_decay", "grad_centralization", "order_params")


def check_parameters(value: Any, network: nn.Cell, learning_rate: Any) -> list[Any]:
    """Check Parameters or parameter groups.

    Args:
        value: the value given.
        network: the network that the optimizer trains.
        learning_rate: the checked learning rate of groups without "lr".

    Returns:
        The list of them, with lists for the iterables of groups: a generator can be read only once.

    Raises:
        TypeError: if it is not an iterable of only Parameters or only dicts, or if the value of a group's key
            has another type.
        ValueError: if it is empty, holds a Parameter twice or none of the network, or if a group has an
            unknown key or a value outside its range.
    """
    accepted = "an iterable of Parameters, or of parameter groups as mindspore.nn.Momentum takes them"
    if not isinstance(value, Iterable) or isinstance(value, (Tensor, Mapping)):
        raise TypeError(f"params must be {accepted}, got {shown(value)}")
    given = list(value)
    if not given:
        raise ValueError(f"params must be {accepted}, got {shown(value)}")
    if not any(all(isinstance(item, kind) for item in given) for kind in (Parameter, dict)):
        raise TypeError(f"params must be {accepted}, got {shown(given)}")
    groups = isinstance(given[0], dict)
    read = [_read_group(item) for item in given] if groups else given
    _check_members([p for group in read for p in group.get("params", ())] if groups else read, network)
    if groups:
        _check_order(read)
        _check_lengths([learning_rate, *(group["lr"] for group in read if "lr" in group)])
    return read


def _read_group(group: Mapping[Any, Any]) -> dict[str, Any]:
    for key in group:
        if key not in _KEYS:
            raise ValueError(
                f"params: a group must have keys among {', '.join(map(repr, _KEYS))}, got {shown(key)}"
            )
    if ("params" in group) == ("order_params" in group) or ("order_params" in group and len(group) > 1):
        raise ValueError(
            "params: a group must have 'params' and its options, or 'order_params' alone, got the keys "
            f"{', '.join(map(repr, group)) or 'of an empty dict'}"
        )
    read = dict(group)
    for key in ("params", "order_params"):
        if key in read:
            read[key] = _read_list(key, read[key])
    checks = {"lr": check_learning_rate, "weight_decay": check_weight_decay}
    for key, check in checks.items():
        if key in read:
            read[key] = check(read[key], f"params: {key!r} of a group")
    if "grad_centralization" in read:
        flag = read["grad_centralization"]
        read["grad_centralization"] = check_flag("params: 'grad_centralization' of a group", flag)
    return read


def _read_list(key: str, given: Any) -> list[Any]:
    if not isinstance(given, Iterable) or isinstance(given, (Tensor, Mapping)):
        raise TypeError(f"params: {key!r} of a group must be an iterable of Parameters, got {shown(given)}")
    items = list(given)
    if not items:
        raise ValueError(f"params: {key!r} of a group must hold at least one Parameter, got {shown(given)}")
    for item in items:
        if not isinstance(item, Parameter):
            raise TypeError(f"params: {key!r} of a group must hold only Parameters, got {shown(item)}")
    return items


def _check_members(parameters: list[Any], network: nn.Cell) -> None:
    if not parameters:
        raise ValueError("params must hold at least one group with 'params', got none")
    names: set[str] = set()
    for parameter in parameters:
        if parameter.name in names:
            raise ValueError(
                f"params must hold each Parameter and each name once, got {parameter.name!r} twice"
            )
        names.add(parameter.name)
    inside = {id(parameter) for parameter in network.get_parameters()}
    if all(id(parameter) not in inside for parameter in parameters):
        raise ValueError(
            f"params must hold Parameters of the network, {type(network).__name__}, got only others: "
            f"{shown([parameter.name for parameter in parameters])}"
        )


def _check_order(groups: list[dict[str, Any]]) -> None:
    grouped = sorted(id(p) for group in groups for p in group.get("params", ()))
    for group in groups:
        order = group.get("order_params")
        if order is not None and sorted(map(id, order)) != grouped:
            raise ValueError(
                "params: 'order_params' of a group must hold the Parameters of all groups, each once, got "
                f"{shown([parameter.name for parameter in order])}"
            )


def _check_lengths(rates: list[Any]) -> None:
    lengths = {
        len(rate) for rate in rates if isinstance(rate, list) or (isinstance(rate, Tensor) and rate.ndim == 1)
    }
    if len(lengths) > 1:
        raise ValueError(
            "params: 'lr' of a group must have as many steps as learning_rate and the other groups, got "
            f"{' and '.join(map(str, sorted(lengths)))} steps"
        )
