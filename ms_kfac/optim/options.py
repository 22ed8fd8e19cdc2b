"""Validation of the optimizers' options at construction."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.nn.learning_rate_schedule import LearningRateSchedule
from numpy.typing import NDArray

from ms_kfac.optim.methods import METHODS
from ms_kfac.refresh import RefreshPolicy, WarmUpInterval


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Check a finite number in an interval.

    Args:
        name: the option's name.
        value: the value given.
        low: lower end.
        high: upper end.
        low_open: whether the lower end itself is rejected.
        high_open: whether the upper end itself is rejected.

    Returns:
        The value as a float.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is outside the interval or not finite.
    """
    left = "(" if low_open or low == -math.inf else "["
    right = ")" if high_open or high == math.inf else "]"
    accepted = f"a number in {left}{low:g}, {high:g}{right}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {accepted}, got {value!r}")
    outside = value < low or value > high or (low_open and value == low) or (high_open and value == high)
    if not math.isfinite(value) or outside:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Check a bool.

    Args:
        name: the option's name.
        value: the value given.

    Returns:
        The value.

    Raises:
        TypeError: if it is not a bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check a string out of a set of choices.

    Args:
        name: the option's name.
        value: the value given.
        choices: the accepted strings.

    Returns:
        The value.

    Raises:
        ValueError: if it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_count(name: str, value: Any) -> int:
    """Check a positive int.

    Args:
        name: the option's name.
        value: the value given.

    Returns:
        The value.

    Raises:
        ValueError: if it is below 1.
        TypeError: if it is not an int.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of at least 1, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
    return value


def check_accumulation(value: Any, *, one_pass: bool) -> int:
    """Check the option ``accumulation_steps``.

    Args:
        value: the value given.
        one_pass: whether the training cell takes one backward pass per step.

    Returns:
        The value.

    Raises:
        TypeError: if it is not an int.
        ValueError: if it is below 1, or not 1 with one pass per step.
    """
    count = check_count("accumulation_steps", value)
    if count > 1 and one_pass:
        raise ValueError(
            "accumulation_steps must be 1 with fisher='sampled' or damping=LevenbergMarquardt(...), as "
            f"the training cell takes one backward pass per step, got {count!r}"
        )
    return count


def check_options(method: str, **values: Any) -> tuple[Any, ...]:
    """Check the method-specific options against :mod:`ms_kfac.optim.methods`.

    Args:
        method: the method's name.
        **values: the values given.

    Returns:
        The values in the given order.

    Raises:
        TypeError: if one has the wrong type.
        ValueError: if one is outside its range.
    """
    checked: list[Any] = []
    for name, value in values.items():
        option = METHODS[method].options[name]
        if value is None and option.optional:
            checked.append(None)
        elif option.choices:
            checked.append(check_choice(name, value, option.choices))
        elif option.whole:
            checked.append(check_count(name, value))
        else:
            checked.append(check_number(name, value, low=option.low, low_open=option.above))
    return tuple(checked)


def check_network(owner: str, value: Any) -> None:
    """Check that the first argument is a network, and not parameters as ``mindspore.nn.Momentum`` takes them.

    Args:
        owner: the optimizer's name.
        value: the value given.

    Raises:
        TypeError: if it is not a Cell.
    """
    if not isinstance(value, nn.Cell):
        got = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
        raise TypeError(
            f"{owner}: the first argument must be the network (a mindspore.nn.Cell), "
            f"got {got}; parameters and their groups go into params="
        )


def refuse_positional(owner: str, values: Sequence[Any]) -> None:
    """Reject positional options, which ``mindspore.nn.Momentum`` accepts.

    Args:
        owner: the optimizer's name.
        values: the positional arguments after the learning rate.

    Raises:
        TypeError: if there are any.
    """
    if values:
        raise TypeError(
            f"{owner}: options must be given by keyword after the network and the learning rate, as in "
            f"{owner}(network, learning_rate, momentum=0.9), got {', '.join(map(repr, values))} by position"
        )


def refuse_option(options: Mapping[str, Any], name: str, reason: str) -> None:
    """Reject an option of K-FAC that does not apply to the method.

    Args:
        options: the options given by keyword.
        name: the option's name.
        reason: why the method doesn't take it.

    Raises:
        TypeError: if it is among them.
    """
    if name in options:
        raise TypeError(f"{name} is not accepted: {reason}, got {options[name]!r}")


def check_interval(name: str, value: int | RefreshPolicy) -> RefreshPolicy:
    """Convert an int or a policy to a refresh policy.

    Args:
        name: the option's name.
        value: a number of steps, valid after a warm-up, or a policy.

    Returns:
        The policy.

    Raises:
        ValueError: if an int is below 1.
        TypeError: if it is neither.
    """
    if isinstance(value, RefreshPolicy):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of at least 1 or a RefreshPolicy, got {value!r}")
    return WarmUpInterval(check_count(name, value))


def check_learning_rate(value: Any, name: str = "learning_rate") -> Any:
    """Check a learning rate in any form that ``mindspore.nn.Momentum`` accepts.

    Args:
        value: the value given.
        name: the option's name.

    Returns:
        The value; an iterator as a list.

    Raises:
        TypeError: if it has none of these forms.
        ValueError: if a number is negative or not finite, or the iterable is empty.
    """
    accepted = "a non-negative number, an iterable or Tensor of them (one per step) or a LearningRateSchedule"
    if isinstance(value, LearningRateSchedule):
        return value
    if isinstance(value, (bool, str, dict)) or not isinstance(value, (int, float, Tensor, Iterable)):
        raise TypeError(f"{name} must be {accepted}, got {value!r}")
    if isinstance(value, Iterator):
        value = list(value)
    numbers = number_array(value)
    if numbers is None or not np.all(numbers >= 0):
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return value


def number_array(value: Any) -> NDArray[Any] | None:
    """Convert a number, or an iterable or Tensor of numbers, to an array.

    Args:
        value: the value given.

    Returns:
        A finite, non-empty array of at most one axis; None if the value is not convertible.
    """
    if isinstance(value, Tensor):
        numbers = value.asnumpy()
    elif isinstance(value, (int, float)):
        numbers = np.asarray(value)
    else:
        items = list(value)
        if not all(isinstance(item, (int, float, np.number)) for item in items):
            return None
        numbers = np.asarray(items)
    shaped = numbers.ndim <= 1 and numbers.size > 0 and numbers.dtype.kind in "iuf"
    return numbers if shaped and np.all(np.isfinite(numbers)) else None


def check_parameters(value: Any) -> list[Any]:
    """Check Parameters or parameter groups.

    Args:
        value: the value given.

    Returns:
        The list of them, with lists for the iterables of groups: a generator can be read only once.
        ``mindspore.nn.Optimizer`` checks the other entries of groups.

    Raises:
        TypeError: if it is not an iterable of only Parameters or only dicts, or if a group's "params" or
            "order_params" is not an iterable of Parameters.
        ValueError: if it is empty.
    """
    accepted = "an iterable of Parameters, or of parameter groups as mindspore.nn.Momentum takes them"
    if not isinstance(value, Iterable) or isinstance(value, (Tensor, Mapping)):
        raise TypeError(f"params must be {accepted}, got {value!r}")
    parameters = list(value)
    if not parameters:
        raise ValueError(f"params must be {accepted}, got {value!r}")
    if not any(all(isinstance(item, kind) for item in parameters) for kind in (Parameter, dict)):
        raise TypeError(f"params must be {accepted}, got {value!r}")
    return [_read_group(item) if isinstance(item, dict) else item for item in parameters]


def _read_group(group: Mapping[str, Any]) -> dict[str, Any]:
    read = dict(group)
    for key in ("params", "order_params"):
        if key not in read:
            continue
        given = read[key]
        if not isinstance(given, Iterable) or isinstance(given, (Tensor, Mapping)):
            raise TypeError(f"params: {key!r} of a group must be an iterable of Parameters, got {given!r}")
        read[key] = list(given)
        for item in read[key]:
            if not isinstance(item, Parameter):
                raise TypeError(f"params: {key!r} of a group must hold only Parameters, got {item!r}")
    return read


def check_patterns(name: str, value: Any) -> tuple[str, ...]:
    """Check regular expressions.

    Args:
        name: the option's name.
        value: a list or tuple of strings.

    Returns:
        The patterns.

    Raises:
        TypeError: if it is a single string or contains anything but strings.
        ValueError: if one does not compile.
    """
    if (
        isinstance(value, str)
        or not isinstance(value, (list, tuple))
        or not all(isinstance(v, str) for v in value)
    ):
        raise TypeError(
            f"{name} must be a list or tuple of regular expressions on layer names, got {value!r}"
        )
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{name} must hold regular expressions, got {pattern!r}: {error}") from error
    return tuple(value)


def check_name(name: str, value: Any) -> str:
    """Check a prefix of Parameter names.

    Args:
        name: the option's name.
        value: the value given.

    Returns:
        The value.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it contains anything but letters, digits, underscores and single dots between them.
    """
    accepted = "None or letters, digits and underscores, possibly with single dots between them"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {accepted}, got {value!r}")
    if re.fullmatch(r"\w+(\.\w+)*", value, re.ASCII) is None:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return value
