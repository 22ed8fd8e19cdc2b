"""Rules for single values, which options and the zoo's recipes share.

This module imports NumPy and the standard library only, so that a recipe can be checked before MindSpore is
loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Steps and intervals are int32.
LARGEST_COUNT = 2**31 - 1
_FLOAT32 = np.finfo(np.float32)
# An iterator may never end, so it is read up to here.
_LONGEST_ITERATOR = 10_000_000


def shown(value: Any, limit: int = 100) -> str:
    """Describe a value in one line, whatever it is.

    Args:
        value: the value.
        limit: the largest number of characters.

    Returns:
        Its ``repr`` without line breaks, cut in the middle if it is long; its type if it has no ``repr``.
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # A repr may raise anything, and Python refuses to print an int of over 4,300 digits.
        text = f"a value of type {type(value).__name__}"
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def plain(value: Any) -> Any:
    """Convert a NumPy bool or number, or an array of one without axes, to Python's.

    Args:
        value: the value given.

    Returns:
        The converted value; anything else unchanged.
    """
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 and value.dtype.kind in "biuf":
        number = value.item()
        return float(number) if value.dtype.kind == "f" else number
    return value


def json_values(value: Any) -> Any:
    """Replace floats that JSON can't hold, NaN and Inf, by None.

    Args:
        value: the value; in dictionaries, lists and tuples, their parts are replaced.

    Returns:
        The value with the replacements; tuples become lists, as in JSON.
    """
    if isinstance(value, Mapping):
        return {name: json_values(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def float32_fault(value: float) -> str:
    """Say what float32 makes of a number that it can't hold.

    Subnormal numbers count as 0: GPUs flush them, and their reciprocals are infinite.

    Args:
        value: a finite number.

    Returns:
        "0" or "infinite"; empty for a number that float32 holds up to rounding.
    """
    if value and abs(value) < _FLOAT32.tiny:
        return "0"
    return "" if math.isfinite(as_float32(value)) else "infinite"


def as_float32(value: float) -> float:
    """Round a number to float32.

    Args:
        value: a number that float64 holds.

    Returns:
        The rounded number, which may be infinite.
    """
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Check a finite number in an interval, in float32.

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
        ValueError: if it is outside the interval or not finite, or becomes so in float32.
    """
    left = "(" if low_open or low == -math.inf else "["
    right = ")" if high_open or high == math.inf else "]"
    accepted = f"{name} must be a number in {left}{low:g}, {high:g}{right}, got {shown(value)}"
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(accepted)

    def inside(found: float) -> bool:
        above = found > low if low_open else found >= low
        below = found < high if high_open else found <= high
        return above and below

    if not inside(number) or not (isinstance(number, int) or math.isfinite(number)):
        raise ValueError(accepted)
    fault = "infinite" if abs(number) > float(_FLOAT32.max) * 2 else float32_fault(number)
    # Strict bounds only: an end itself may round to the other side, and is accepted.
    rounded = as_float32(number) if not fault else 0.0
    if not fault and ((low_open and rounded <= low) or (high_open and rounded >= high)):
        fault = f"{rounded:g}"
    if fault:
        raise ValueError(f"{accepted}, which is {fault} in float32")
    return float(number)


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
    flag = plain(value)
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return flag


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check a string out of a set of choices.

    Args:
        name: the option's name.
        value: the value given.
        choices: the accepted strings.

    Returns:
        The value.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is none of them.
    """
    message = f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}"
    if not isinstance(value, str):
        raise TypeError(message)
    if value not in choices:
        raise ValueError(message)
    return str(value)


def check_count(name: str, value: Any, or_else: str = "", least: int = 1) -> int:
    """Check a positive int that int32 holds.

    Args:
        name: the option's name.
        value: the value given.
        or_else: what else the option accepts, for the message.
        least: the smallest accepted int.

    Returns:
        The value.

    Raises:
        ValueError: if it is outside the range.
        TypeError: if it is not an int.
    """
    accepted = f"an int of at least {least}{or_else}"
    count = plain(value)
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be {accepted}, got {shown(value)}")
    if count < least:
        raise ValueError(f"{name} must be {accepted}, got {shown(value)}")
    if count > LARGEST_COUNT:
        raise ValueError(f"{name} must be {accepted} and at most {LARGEST_COUNT:,}, got {shown(value)}")
    return count


def check_numbers(name: str, value: Any, accepted: str, *, positive: bool) -> NDArray[Any]:
    """Check a number, or one per step.

    Args:
        name: the option's name.
        value: a number, an iterable of numbers, or a Tensor or array of at most one axis.
        accepted: what the option accepts.
        positive: whether 0 is rejected. If not, what is 0 in float32 is rejected for a single number only:
            schedules may fade out.

    Returns:
        float64, without axes for a single number.

    Raises:
        TypeError: if it is none of these.
        ValueError: if a number is negative or not finite, or becomes 0 or infinite in float32, or if there is
            none.
    """
    given = value
    if isinstance(value, Iterator):
        given = value = list(islice(value, _LONGEST_ITERATOR + 1))
        if len(value) > _LONGEST_ITERATOR:
            raise ValueError(
                f"{name} must be {accepted}, got an iterator of over {_LONGEST_ITERATOR:,} numbers"
            )
    numbers = _number_array(value)
    message = f"{name} must be {accepted}, got "
    if numbers is None:
        raise TypeError(message + shown(given))
    if numbers.ndim > 1 or numbers.size == 0:
        raise ValueError(message + shown(given))
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    single = numbers.ndim == 0
    wrong = ~np.isfinite(rounded) | (numbers < 0) | ((rounded < _FLOAT32.tiny) & positive)
    if single:
        wrong |= (numbers > 0) & (rounded < _FLOAT32.tiny)
    if not wrong.any():
        return numbers
    index = int(np.argmax(wrong))
    first = float(numbers.reshape(-1)[index])
    fault = float32_fault(first) if math.isfinite(first) else ""
    text = shown(given) if single else f"{shown(given)} with {first!r} at index {index}"
    raise ValueError(message + text + (f", which is {fault} in float32" if fault else ""))


def _number_array(value: Any) -> NDArray[Any] | None:
    """The numbers as float64; None if there is anything else. An int that float64 can't hold is infinite."""
    if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Set)):
        return None
    if hasattr(value, "asnumpy"):  # A Tensor.
        value = value.asnumpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value, dtype=np.float64) if value.dtype.kind in "iuf" else None
    single = isinstance(value, (int, float))
    if not single and not isinstance(value, Iterable):
        return None
    items = [plain(item) for item in ([value] if single else value)]
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in items):
        return None
    numbers = np.array(
        [math.inf if abs(item) > float(_FLOAT32.max) * 2 else item for item in items], np.float64
    )
    return numbers.reshape(()) if single else numbers
