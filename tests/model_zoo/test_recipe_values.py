"""Wrong values of every key of recipes, and text that is no recipe: one sentence with file, line or key."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo.common.errors import RecipeError
from model_zoo.common.options.data import DATA
from model_zoo.common.options.networks import DATA_OF_NETWORK, NETWORKS
from model_zoo.common.options.optimizers import OPTIMIZERS
from model_zoo.common.recipe import Recipe, load_recipe, parse_recipe
from model_zoo.common.schedules import SCHEDULES
from model_zoo.common.schema import Section, Value, Variant
from model_zoo.common.yaml_text import read_yaml
from model_zoo.train import main
from tests.model_zoo.synthetic_data import RECIPES

CONTENT: dict[str, Any] = {
    "network": {"name": "resnet"},
    "data": {"name": "digits", "batch_size": 32},
    "optimizer": {"name": "kfac", "learning_rate": 0.1},
    "epochs": 5,
}
TRAPS = ["", "010", "1:30", "1_000", "0x10", "1e-3", "yes", "on", "nan", "2020-01-01", "\n", "x" * 1000, "٣"]
NEVER: list[Any] = [*TRAPS, b"1", {"a": 1}, {1}, object(), 1j]
NO_NUMBER = [
    *NEVER,
    None,
    True,
    [],
    [1],
    float("nan"),
    float("inf"),
    1e39,
    -1e39,
    10**400,
    -(10**5000),
    1e-50,
]
NO_WORD = [*NEVER, None, True, [], ["sgdm"], 0, 1.5, 10**5000]


def wrong_values(accepts: str) -> list[Any] | None:
    """Values that a rule with this text refuses; None for an unknown kind of rule."""
    null = re.match(r"null(, dynamic)? or ", accepts)
    if null is not None:
        inner = wrong_values(accepts[null.end() :])
        return None if inner is None else [value for value in inner if value is not None]
    bound = re.search(r"at least (\d+)", accepts)
    integers = [0.5, 2.0**40, 2**31, 2**70, int(bound[1]) - 1 if bound else 3]
    if accepts.startswith("an integer"):
        return NO_NUMBER + [value for value in integers if value != 0.5] + [1.5]
    if re.match(r"one of \d", accepts):
        return [*NO_NUMBER, 0, 3, 1.5]
    if accepts.startswith("a number"):
        ends = [float(found) for found in re.findall(r"(?:above|below) ([\d.]+)", accepts)]
        beyond = [float(found) - 1 for found in re.findall(r"at least ([\d.]+)", accepts)]
        beyond += [float(found) * 2 for found in re.findall(r"at most ([\d.e+]+)", accepts)]
        rounded = [1 - 1e-12] if "below 1" in accepts else []
        return [*NO_NUMBER, -1.0, *ends[:1], *beyond, *rounded]
    if accepts == "true or false":
        return [*NEVER, None, 0, 1, 1.5, []]
    if accepts.startswith("a list of three numbers"):
        return [*NEVER, None, 1.5, [1, 2], [1, 2, "3"], [1, 2, float("nan")], [1, 2, 1e39], [1, 2, True]]
    if accepts.startswith("a list of regular"):
        return [*NEVER, None, 1, [1], ["("], ["a{99999999999}"], [None], ["(" * 5000]]
    if accepts.startswith("a list of"):
        return [*NEVER, None, 1, [1.5], ["x"], [None], [True], [2**31]]
    if re.match(r"one of [a-zA-Z]|[\w.]+( or [\w.]+)?$", accepts):
        return NO_WORD
    return None


def sections() -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """The dotted path of each section, its name, a recipe that has it, and its dataclass."""
    yield "", "recipe", CONTENT, Recipe
    for name, kind in NETWORKS.items():
        data = {"name": DATA_OF_NETWORK[name][0], "batch_size": 32}
        yield "network", name, {**CONTENT, "network": {"name": name}, "data": data}, kind
    for name, kind in DATA.items():
        takers = [network for network, takes in DATA_OF_NETWORK.items() if name in takes]
        data = {"name": name, "batch_size": 32}
        yield "data", name, {**CONTENT, "network": {"name": takers[0]}, "data": data}, kind
    for name, kind in OPTIMIZERS.items():
        yield "optimizer", name, {**CONTENT, "optimizer": {"name": name, "learning_rate": 0.1}}, kind
    adam = {"name": "adamw", "learning_rate": 0.1}
    kfac = CONTENT["optimizer"]
    of_adam = {**CONTENT, "optimizer": {**kfac, "first_order": adam}}
    yield "optimizer.first_order", "adamw", of_adam, OPTIMIZERS["adamw"]
    for name, kind in SCHEDULES.items():
        yield "schedule", name, {**CONTENT, "schedule": {"name": name}}, kind
        damped = {**CONTENT, "optimizer": {**kfac, "damping_schedule": {"name": name}}}
        yield "optimizer.damping_schedule", name, damped, kind
    for field in dataclasses.fields(Recipe):
        if isinstance(field.metadata["rule"], Section):
            yield field.name, field.name, {**CONTENT, field.name: {}}, field.metadata["rule"].kind


SECTIONS = list(sections())


def put(content: dict[str, Any], path: str, name: str, value: Any) -> str:
    section = content
    for key in filter(None, path.split(".")):
        section = section[key]
    section[name] = value
    return f"{path}.{name}" if path else name


@pytest.mark.parametrize(
    ("path", "name", "content", "kind"), SECTIONS, ids=[f"{s[0]}-{s[1]}" for s in SECTIONS]
)
def test_wrong_values_are_refused_by_key(
    path: str,
    name: str,
    content: dict[str, Any],
    kind: Any,
    record_property: Callable[[str, object], None],
) -> None:
    parse_recipe(content)
    tried = 0
    for field in dataclasses.fields(kind):
        rule = field.metadata["rule"]
        values: list[Any] | None = [value for value in NO_WORD if not isinstance(value, dict)]
        if not isinstance(rule, (Section, Variant)):
            assert isinstance(rule, Value)
            values = wrong_values(rule.accepts)
        assert values is not None, f"{field.name}: no wrong values for {rule.accepts!r}; see wrong_values"
        tried += len(values)
        for value in values:
            changed = copy.deepcopy(content)
            key = put(changed, path, field.name, value)
            try:
                parse_recipe(changed)
            except RecipeError as error:
                message = str(error)
                assert re.fullmatch(rf"{re.escape(key)} is .+; accepted.*: .+\.", message), message
                assert len(message) < 500
            else:
                pytest.fail(f"{key}: {str(value)[:50]!r} is accepted")
    record_property("inputs", tried)


def test_many_values_are_tried() -> None:
    rules = [field.metadata["rule"] for *_, kind in SECTIONS for field in dataclasses.fields(kind)]
    values = [wrong_values(rule.accepts) or [] for rule in rules if isinstance(rule, Value)]
    assert sum(map(len, values)) >= 5000


@pytest.mark.parametrize(
    "key",
    [1, None, True, "a\nb", "x" * 1000, ("a",), 10**5000, b"epochs"],
    ids=lambda key: type(key).__name__,
)
def test_odd_keys_are_refused_in_one_line(key: Any) -> None:
    with pytest.raises(
        RecipeError, match=r"^[^\n]{1,110} is not a key of a recipe.*; accepted there: [^\n]+$"
    ):
        parse_recipe({**CONTENT, key: 1})


@pytest.mark.parametrize(
    "intervals", [{"010": 1, 0: 1}, {0: 1, "0": 2}, {"1_0": 1, 0: 1}, {"٣": 1, 0: 1}, {0: 2**31}, {0: "1"}]
)
def test_first_steps_are_plain_numbers_and_distinct(intervals: Any) -> None:
    content = {**CONTENT, "optimizer": {**CONTENT["optimizer"], "inverse_interval": intervals}}
    with pytest.raises(RecipeError, match=r"^optimizer\.inverse_interval is .*; accepted: an integer"):
        parse_recipe(content)


@pytest.mark.parametrize("schedule", [{"name": "exponential", "every_epochs": 0.1}, {"name": "step"}])
def test_a_damping_that_ends_at_zero_is_refused(schedule: dict[str, Any]) -> None:
    if schedule["name"] == "step":
        schedule = {**schedule, "gamma": 1e-20, "milestones": [1, 2]}
    content = {**CONTENT, "optimizer": {**CONTENT["optimizer"], "damping_schedule": schedule}}
    with pytest.raises(
        RecipeError, match=r"^optimizer\.damping_schedule\.gamma is .* 0 in float32; accepted: "
    ):
        parse_recipe(content)


def test_yaml_is_read_without_the_surprises_of_its_version_1_1() -> None:
    text = (
        "[010, 1:30, 1_000, 0x10, yes, off, 2020-01-01, '1', 7, -7, 1e-3, 5., .5, 1E+2, true, False, ~, null]"
    )
    strings = ["010", "1:30", "1_000", "0x10", "yes", "off", "2020-01-01", "1"]
    assert read_yaml(text) == [*strings, 7, -7, 0.001, 5.0, 0.5, 100.0, True, False, None, None]
    assert [type(value) for value in read_yaml("[7, 7.0, .inf, -.INF]")] == [int, float, float, float]
    assert read_yaml("a:\n  b: {c: [1, x y]}\nd: |\n  e\n") == {"a": {"b": {"c": [1, "x y"]}}, "d": "e\n"}


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
REFUSED = {
    "twice": ("epochs: 1\nseed: 2\nepochs: 3", "line 3, the key 'epochs' is there twice"),
    "twice inside": ("a:\n  b: 1\n  'b': 2", "line 3, the key 'b' is there twice"),
    "aliases": (BOMB, r"line 2, the alias \*a is not accepted"),
    "alias of itself": ("&a [*a]", r"line 1, the alias \*a is not accepted"),
    "object": ("a: 1\nb: !!python/object/apply:os.system ['true']", "line 2, the tag '.*os.system' is not"),
    "int": ("epochs: !!int x", "line 1, the tag .*int' is not accepted"),
    "timestamp": ("epochs: !!timestamp x", "line 1, the tag .*timestamp' is not accepted"),
    "long int": ("\nepochs: " + "9" * 5000, "line 2, an integer of 5,000 digits is too large"),
    "levels": ("[" * 100_000, "line 1, over 20 brackets within each other"),
    "levels by indentation": ("- " * 5000, "it has too many levels"),
    "bracket": ("epochs: [1", "line 1, .*expected"),
    "tab": ("a:\n\t- b", "line 2, .*"),
    "nul": ("a: 1\nb: \0", r"line 2, the character '\\x00' is not"),
    "documents": ("a: 1\n---\nb: 1", "line 2, expected a single document"),
    "key": ("? [a]\n: 1", r"line 1, the key \['a'\] is not accepted: must be a single value"),
    "escape beyond all characters": (r'a: "\UFFFFFFFF"', "line 1, an escape is no character"),
    "escape beyond unicode": (r'a: "\U00110000"', "line 1, an escape is no character"),
    "directive": ("%YAML 3.0\n---\na: 1", "line 1, .*incompatible"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_text_that_is_refused_has_a_line(case: str, tmp_path: Path) -> None:
    text, message = REFUSED[case]
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=rf"^recipe .*r\.yaml can't be read as YAML: {message}[^\n]*\.$"):
        load_recipe(path)
    with pytest.raises(RecipeError, match=r"^recipe .*: --set ['\"][^\n]*can't be read as YAML: [^\n]*\.$"):
        load_recipe(RECIPES[0], [f"epochs={text}"])


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "long").write_text("#" * (2**20 + 1))
    (tmp_path / "latin").write_bytes(b"a: 1\nb: \xff\n")
    for name, message in {
        "pipe": "is not a regular file",
        ".": "is not a regular file",
        "none": "can't be read: No such file",
        "loop": "can't be read: ",
        "n" * 300: "can't be read: File name too long",
        "long": r"has 1,048,577 characters; accepted: at most 1,048,576",
        "latin": "is not text in UTF-8: line 2, invalid start byte",
    }.items():
        with pytest.raises(RecipeError, match=rf"^recipe [^\n]*{message}[^\n]*\.$"):
            load_recipe(tmp_path / name)


@given(st.text(max_size=40) | st.text("[]{}:,&*!?|>-'\"#%@` \n\t0e.~ax", max_size=40))
@settings(max_examples=300)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        read_yaml(text)
    except RecipeError as error:
        assert re.fullmatch(r"can't be read as YAML: (line \d+, |it has too)[^\n]*\.", str(error))


LINES = RECIPES[0].read_text(encoding="utf-8").splitlines()


@given(
    st.integers(0, len(LINES) - 1),
    st.sampled_from([*TRAPS, "[", "{", "*a", "!!x 1", ": :", "-", "null", ".inf"]),
)
@settings(max_examples=200)
def test_a_recipe_with_a_changed_line_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, index: int, value: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    lines = [*LINES]
    lines[index] = f"{lines[index].partition(':')[0]}: {value}"
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        load_recipe(path)
    except RecipeError as error:
        assert re.fullmatch(r"recipe [^\n]*changed\.yaml[^\n]+\.", str(error))


def test_the_command_refuses_before_it_loads_anything(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPES[0].read_text(encoding="utf-8") + "\nseed: 010\n", encoding="utf-8")
    assert (
        main(["--recipe", str(path), "--data-dir", str(tmp_path / "absent"), "--output", str(tmp_path / "o")])
        == 2
    )
    assert re.fullmatch(r"error: recipe .*r\.yaml[^\n]*\n", capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def test_a_similarity_has_a_square_in_float32() -> None:
    content = {**CONTENT, "optimizer": {"name": "spngd", "learning_rate": 0.1, "similarity": 1e20}}
    with pytest.raises(
        RecipeError, match=r"^optimizer\.similarity is 1e\+20; accepted: .* of at most 1e\+18\.$"
    ):
        parse_recipe(content)
