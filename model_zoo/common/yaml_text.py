"""Reads the YAML of recipes: values as in YAML 1.2's core schema, nothing that surprises or explodes.

YAML 1.1, which PyYAML reads, takes `010` for 8, `1:30` for 90, `1_000` for 1000, `yes` for true, and `1e-3`
for a string. Here only decimal numbers, `true`, `false` and `null` are not strings.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from model_zoo.common.errors import RecipeError
from model_zoo.common.values import shown

_NULL = r"~|null|Null|NULL|"
_BOOL = r"true|True|TRUE|false|False|FALSE"
_INT = r"[-+]?(0|[1-9][0-9]*)"
_FLOAT = r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_LONGEST_INT = 20
_DEEPEST = 20
_LARGEST_FILE = 2**20


class _Loader(yaml.SafeLoader):
    """Refuses aliases, tags, and keys that are there twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(f"the alias *{event.anchor} is not accepted: write the value itself", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal(f"the tag {shown(event.tag)} is not accepted", event)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)):
                raise _refusal(f"the key {shown(key)} is not accepted: must be a single value", key_node)
            if key in found:
                raise _refusal(f"the key {shown(key)} is there twice", key_node)
            found[key] = self.construct_object(value_node, deep=True)
        return found

    def construct_sequence(self, node: Any, deep: bool = False) -> list[Any]:
        return [self.construct_object(item, deep=True) for item in node.value]

    def fetch_flow_collection_start(self, token: Any) -> None:
        # The scanner's time grows with the square of the levels.
        if self.flow_level >= _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"over {_DEEPEST} brackets within each other", problem_mark=self.get_mark()
            )
        super().fetch_flow_collection_start(token)

    def construct_int(self, node: Any) -> int:
        if len(node.value) > _LONGEST_INT:
            raise _refusal(f"an integer of {len(node.value):,} digits is too large", node)
        return int(node.value)


def _refusal(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _float(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Any] = {
    "null": (_NULL, lambda loader, node: None),
    "bool": (_BOOL, lambda loader, node: node.value.lower() == "true"),
    "int": (_INT, _Loader.construct_int),
    "float": (_FLOAT, lambda loader, node: _float(node.value.lower())),
    "str": (None, _Loader.construct_scalar),
    "seq": (None, _Loader.construct_sequence),
    "map": (None, _Loader.construct_mapping),
}
# Its own, and not those of YAML 1.1.
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {}
for _kind, (_pattern, _construct) in _SCALARS.items():
    if _pattern is not None:
        # None stands for all first characters.
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), None)
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct)


def read_yaml(text: str) -> Any:
    """Reads one YAML document.

    Args:
        text: the document.

    Returns:
        Dicts, lists, strings, numbers, bools and None.

    Raises:
        RecipeError: the text is not YAML, or holds an alias, a tag, a key twice, a huge integer, or too many
            levels. The message has the line, and no subject.
    """
    if len(text) > _LARGEST_FILE:
        raise RecipeError(f"has {len(text):,} characters; accepted: at most {_LARGEST_FILE:,}.")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        problem = ", ".join(part for part in (error.context, error.problem) if part)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character {chr(error.character)!a} is not accepted"
    except (ValueError, OverflowError):
        # PyYAML's reader of escapes makes characters of any number.
        problem = "an escape is no character"
        line = next((at for at, own in enumerate(text.splitlines(), start=1) if "\\U" in own), 1)
    except RecursionError:
        raise RecipeError("can't be read as YAML: it has too many levels.") from None
    raise RecipeError(f"can't be read as YAML: line {line}, {_one_line(problem)}.")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in line)[:200].rstrip(".")
