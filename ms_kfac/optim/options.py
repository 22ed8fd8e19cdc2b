"""Validation of the optimizers' options at construction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from ms_kfac.optim.methods import METHODS
from ms_kfac.refresh import RefreshPolicy, WarmUpInterval
from ms_kfac.values import check_choice, check_count, check_number, check_numbers, shown


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
            checked.append(check_number(name, value, low=option.low, high=option.high, low_open=option.above))
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
        got = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
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
            f"{owner}(network, learning_rate, momentum=0.9), got {', '.join(map(shown, values))} by position"
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
        raise TypeError(f"{name} is not accepted: {reason}, got {shown(options[name])}")


def check_interval(name: str, value: Any) -> RefreshPolicy:
    """Convert an int or a policy to a refresh policy.

    Args:
        name: the option's name.
        value: a number of steps, valid after a warm-up, or a policy.

    Returns:
        The policy.

    Raises:
        ValueError: if an int is below 1 or more than int32 holds.
        TypeError: if it is neither.
    """
    if isinstance(value, RefreshPolicy):
        return value
    return WarmUpInterval(check_count(name, value, " or a RefreshPolicy"))


def check_learning_rate(value: Any, name: str = "learning_rate") -> Any:
    """Check a learning rate in any form that ``mindspore.nn.Momentum`` accepts, or in NumPy's.

    Args:
        value: the value given.
        name: the option's name.

    Returns:
        A float, a float32 Tensor, a list of floats or a LearningRateSchedule.

    Raises:
        TypeError: if it has none of these forms.
        ValueError: if a number is negative, or not finite in float32, or the iterable is empty.
    """
    if isinstance(value, LearningRateSchedule):
        return value
    accepted = "a non-negative number, an iterable or Tensor of them (one per step) or a LearningRateSchedule"
    numbers = check_numbers(name, value, accepted, positive=False)
    if isinstance(value, Tensor):
        return value if value.dtype == ms.float32 else Tensor(numbers, ms.float32)
    return numbers.tolist()


def check_weight_decay(value: Any, name: str = "weight_decay") -> Any:
    """Check a weight decay: a non-negative number, or a Cell that is called with the step.

    Args:
        value: the value given.
        name: the option's name.

    Returns:
        A float or the Cell.

    Raises:
        TypeError: if it is neither.
        ValueError: if a number is outside its range.
    """
    return value if isinstance(value, nn.Cell) else check_number(name, value, low=0.0)


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
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise TypeError(
            f"{name} must be a list or tuple of regular expressions on layer names, got {shown(value)}"
        )
    for pattern in value:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{name} must hold regular expressions, got {shown(pattern)}: {shown(str(error))[1:-1]}"
            ) from error
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
        raise TypeError(f"{name} must be {accepted}, got {shown(value)}")
    if re.fullmatch(r"\w+(\.\w+)*", value, re.ASCII) is None:
        raise ValueError(f"{name} must be {accepted}, got {shown(value)}")
    return value
