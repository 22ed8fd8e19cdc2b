"""Reads parsed YAML into frozen dataclasses; each field has a rule that checks its value."""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Protocol, TypeVar

from model_zoo.common.errors import RecipeError
from model_zoo.common.values import LARGEST_COUNT, as_float32, float32_fault, shown

T = TypeVar("T")


class Rule(Protocol):
    """Checks and converts one value."""

    def read(self, path: str, value: object) -> Any:
        """Returns the converted value, or raises RecipeError."""


def setting(rule: Rule, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field whose value is read by `rule`; the key is required if there is no default."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def dotted(path: str, key: object) -> str:
    """The dotted path of `key` inside the section `path` (the recipe itself is "")."""
    name = key if isinstance(key, str) and key.isprintable() and len(key) < 60 else shown(key)
    return f"{path}.{name}" if path else name


def check_key(path: str, key: object, known: Sequence[str]) -> None:
    """Checks that a key is known.

    Args:
        path: dotted path of the section.
        key: the key found there.
        known: the keys of the section.

    Raises:
        RecipeError: the key is unknown.
    """
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=1) if isinstance(key, str) else []
    hint = f" (did you mean {dotted(path, near[0])}?)" if near else ""
    raise RecipeError(
        f"{dotted(path, key)} is not a key of a recipe{hint}; accepted there: {', '.join(known)}."
    )


def read_section(kind: Callable[..., T], value: object, path: str) -> T:
    """Reads a mapping into the dataclass `kind`.

    Args:
        kind: a frozen dataclass whose fields were made by `setting`.
        value: the parsed YAML of the section.
        path: dotted path of the section.

    Returns:
        The dataclass, with every value checked.

    Raises:
        RecipeError: the value is not a mapping, or a key is unknown, missing or has a wrong value.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"{path or 'the recipe'} is {shown(value)}; accepted: a mapping with the keys "
            f"{', '.join(fields)}."
        )
    for key in value:
        check_key(path, key, list(fields))
    read = {}
    for name, field in fields.items():
        rule: Rule = field.metadata["rule"]
        if name in value:
            read[name] = rule.read(dotted(path, name), value[name])
        elif field.default is dataclasses.MISSING:
            raise RecipeError(f"{dotted(path, name)} is missing from the recipe.")
    return kind(**read)


@dataclasses.dataclass(frozen=True)
class Section:
    """A nested mapping, read into one dataclass."""

    kind: Callable[..., Any]

    def read(self, path: str, value: object) -> Any:
        """Returns the dataclass."""
        return read_section(self.kind, value, path)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A nested mapping whose key `name` selects the dataclass to read it into."""

    kinds: Mapping[str, Callable[..., Any]]

    def read(self, path: str, value: object) -> Any:
        """Reads the section into the dataclass selected by `name`.

        Args:
            path: dotted path of the section.
            value: the parsed YAML of the section.

        Returns:
            The dataclass of that name.

        Raises:
            RecipeError: the value is not a mapping, its name is missing or unknown, or a key is not accepted.
        """
        if not isinstance(value, Mapping) or "name" not in value:
            raise RecipeError(
                f"{path} is {shown(value)}; accepted: a mapping with the key name: "
                f"{one_of(self.kinds).accepts}."
            )
        name = one_of(self.kinds).read(dotted(path, "name"), value["name"])
        return read_section(self.kinds[name], value, path)


class UnrepresentableError(ValueError):
    """A number changes where it is used, in float32 or int32; the text says what it becomes."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A single value."""

    accepts: str
    convert: Callable[[Any], Any]

    def read(self, path: str, value: object) -> Any:
        """Converts the value.

        Args:
            path: dotted path of the key.
            value: the parsed YAML value.

        Returns:
            The converted value.

        Raises:
            RecipeError: the value is not accepted.
        """
        try:
            return self.convert(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            fault = f", {error}" if isinstance(error, UnrepresentableError) else ""
            raise RecipeError(f"{path} is {shown(value)}{fault}; accepted: {self.accepts}.") from None


def one_of(names: Any) -> Value:
    """One of the given names."""
    choices = list(names)

    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return Value(" or ".join(choices) if len(choices) < 3 else f"one of {', '.join(choices)}", convert)


def integer(least: int) -> Value:
    """An integer of at least `least`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        if value > LARGEST_COUNT:
            raise UnrepresentableError(f"which is above {LARGEST_COUNT:,}, the largest int32")
        return value

    return Value(f"an integer of at least {least}", convert)


def number(
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Value:
    """A finite number within the given bounds, also in float32."""
    bounds: list[tuple[float | None, str, Callable[[float, float], bool]]] = [
        (above, "above", operator.gt),
        (least, "of at least", operator.ge),
        (below, "below", operator.lt),
        (most, "of at most", operator.le),
    ]

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        result = float(value)

        def inside(found: float) -> bool:
            return all(holds(found, bound) for bound, _, holds in bounds if bound is not None)

        if not math.isfinite(result) or not inside(result):
            raise ValueError
        fault = float32_fault(result)
        if not fault and result < (below or 0.0) <= as_float32(result):
            fault = f"{below:g}"
        if fault:
            raise UnrepresentableError(f"which is {fault} in float32")
        return result

    words = " and ".join(f"{word} {bound:g}" for bound, word, _ in bounds if bound is not None)
    return Value(f"a number {words}".strip(), convert)


def optional(rule: Value) -> Value:
    """None (YAML's null), or a value that `rule` accepts."""
    return Value(f"null or {rule.accepts}", lambda value: None if value is None else rule.convert(value))


def list_of(rule: Value, what: str) -> Value:
    """A list of values that `rule` accepts, returned as a tuple."""

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        return tuple(rule.convert(item) for item in value)

    return Value(what, convert)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _pattern(value: Any) -> str:
    try:
        re.compile(_text(value))
    except re.error as error:
        raise ValueError(str(error)) from error
    return str(value)


boolean = Value("true or false", _boolean)
text = Value("a string", _text)
pattern = Value("a regular expression", _pattern)
