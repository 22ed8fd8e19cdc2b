"""Checks of the optimizers' options, made at construction."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor
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
    """A finite number in an interval.

    Args:
        name: the option's name.
        value: what was given.
        low: lower end.
        high: upper end.
        low_open: whether the lower end itself is refused.
        high_open: whether the upper end itself is refused.

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
    """A bool.

    Args:
        name: the option's name.
        value: what was given.

    Returns:
        The value.

    Raises:
        TypeError: if it is not a bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of a few words.

    Args:
        name: the option's name.
        value: what was given.
        choices: the words accepted.

    Returns:
        The value.

    Raises:
        ValueError: if it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_count(name: str, value: Any) -> int:
    """A positive int.

    Args:
        name: the option's name.
        value: what was given.

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


def check_options(method: str, **values: Any) -> tuple[Any, ...]:
    """A method's own options, by the rules of :mod:`ms_kfac.optim.methods`.

    Args:
        method: the method's name.
        **values: what was given.

    Returns:
        The values, in the order given.

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


def refuse_positional(owner: str, values: Sequence[Any]) -> None:
    """Refuses options that were given by position, as ``mindspore.nn.Momentum`` takes them.

    Args:
        owner: the optimizer's name.
        values: what was given after the learning rate.

    Raises:
        TypeError: if there is any.
    """
    if values:
        raise TypeError(
            f"{owner}: options must be given by keyword after the network and the learning rate, as in "
            f"{owner}(network, learning_rate, momentum=0.9), got {', '.join(map(repr, values))} by position"
        )


def refuse_option(options: Mapping[str, Any], name: str, reason: str) -> None:
    """Refuses an option that a method shares with K-FAC's signature but has no use for.

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
    """A refresh policy from an int or a policy.

    Args:
        name: the option's name.
        value: a number of steps, which counts after a warm-up, or a policy.

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


def check_learning_rate(value: Any) -> Any:
    """A learning rate in any of the forms that ``mindspore.nn.Momentum`` takes.

    Args:
        value: what was given.

    Returns:
        The value; an iterator as a list.

    Raises:
        TypeError: if it has none of the forms.
        ValueError: if a number is negative or not finite, or there is none.
    """
    accepted = "a non-negative number, an iterable or Tensor of them (one a step) or a LearningRateSchedule"
    if isinstance(value, LearningRateSchedule):
        return value
    if isinstance(value, (bool, str, dict)) or not isinstance(value, (int, float, Tensor, Iterable)):
        raise TypeError(f"learning_rate must be {accepted}, got {value!r}")
    if isinstance(value, Iterator):
        value = list(value)
    numbers = number_array(value)
    if numbers is None or not np.all(numbers >= 0):
        raise ValueError(f"learning_rate must be {accepted}, got {value!r}")
    return value


def number_array(value: Any) -> NDArray[Any] | None:
    """A number, or an iterable or Tensor of numbers, as an array.

    Args:
        value: what was given.

    Returns:
        A finite, non-empty array of at most one axis; None where the value is no such thing.
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
    """Parameters or parameter groups.

    Args:
        value: what was given.

    Returns:
        They as a list; what a group holds is checked by ``mindspore.nn.Optimizer``.

    Raises:
        TypeError: if it is no iterable of Parameters alone or of dicts alone.
        ValueError: if it is empty.
    """
    accepted = "an iterable of Parameters, or of parameter groups as mindspore.nn.Momentum takes them"
    if not isinstance(value, Iterable):
        raise TypeError(f"params must be {accepted}, got {value!r}")
    parameters = list(value)
    if not parameters:
        raise ValueError(f"params must be {accepted}, got {value!r}")
    if not any(all(isinstance(item, kind) for item in parameters) for kind in (Parameter, dict)):
        raise TypeError(f"params must be {accepted}, got {value!r}")
    return parameters


def check_patterns(name: str, value: Any) -> tuple[str, ...]:
    """Regular expressions.

    Args:
        name: the option's name.
        value: what was given: a sequence of strings.

    Returns:
        The patterns.

    Raises:
        TypeError: if it is a lone string or holds anything but strings.
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
            raise ValueError(f"{name} holds {pattern!r}, which is no regular expression: {error}") from error
    return tuple(value)


def check_name(name: str, value: Any) -> str:
    """What names of Parameters may start with.

    Args:
        name: the option's name.
        value: what was given.

    Returns:
        The value.

    Raises:
        TypeError: if it is no string.
        ValueError: if it is not of letters, digits, underscores and single dots between them.
    """
    accepted = "None or letters, digits and underscores, maybe with single dots between them"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {accepted}, got {value!r}")
    if re.fullmatch(r"\w+(\.\w+)*", value, re.ASCII) is None:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return value
