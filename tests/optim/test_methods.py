"""The registry of methods: package, recipes, benchmarks and tests all have the methods that it names."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from mindspore import nn

import ms_kfac
from benchmarks import kill_and_resume
from benchmarks import methods as compared
from model_zoo.common.methods import METHODS as METHODS_OF_RECIPES
from model_zoo.common.options.optimizers import OPTIMIZERS, SecondOrderOptions
from ms_kfac import optim
from ms_kfac.optim.methods import METHODS, Method
from ms_kfac.optim.options import check_options
from tests.support.methods import METHODS as TESTED

CLASSES = {method.class_name for method in METHODS.values()}
FIRST_ORDER = {"sgdm", "adam", "adamw"}
BY_NAME = pytest.mark.parametrize(("name", "method"), METHODS.items(), ids=list(METHODS))


def test_the_package_exports_the_registered_methods() -> None:
    public = {name: getattr(ms_kfac, name) for name in ms_kfac.__all__}
    optimizers = {n for n, cls in public.items() if isinstance(cls, type) and issubclass(cls, nn.Optimizer)}
    assert optimizers == set(optim.__all__) == CLASSES


def test_recipes_benchmarks_and_tests_have_the_registered_methods() -> None:
    assert set(OPTIMIZERS) - FIRST_ORDER == set(METHODS)
    assert set(compared.SECOND_ORDER) == set(METHODS)
    assert set(kill_and_resume.siblings(kill_and_resume.DIGITS)) - FIRST_ORDER == set(METHODS)
    assert {name.split()[0] for name in TESTED} == CLASSES


def test_recipes_read_the_same_registry() -> None:
    """From its file, which is run a second time."""
    assert {n: dataclasses.asdict(m) for n, m in METHODS_OF_RECIPES.items()} == {
        n: dataclasses.asdict(m) for n, m in METHODS.items()
    }


@BY_NAME
def test_registry_describes_the_constructors(name: str, method: Method) -> None:
    cls = getattr(ms_kfac, method.class_name)
    assert cls.method == name
    shared = signature(ms_kfac.KFAC)
    taken = {**shared, **signature(cls)}
    told = {**{key: option.default for key, option in method.options.items()}, **method.defaults}
    assert {key: taken[key] for key in told} == told
    assert {key for key, default in taken.items() if shared.get(key, ...) != default} <= set(told)


def signature(cls: Any) -> dict[str, Any]:
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


@BY_NAME
def test_recipes_have_the_options_and_their_defaults(name: str, method: Method) -> None:
    options = OPTIMIZERS[name](name, 0.1)
    assert isinstance(options, SecondOrderOptions)
    found = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    defaults = signature(ms_kfac.KFAC) | signature(getattr(ms_kfac, method.class_name))
    assert set(method.options) <= set(found)
    found["first_order"] = found["first_order"].name
    for key in set(found) - {"name", "learning_rate", "damping_schedule"}:
        assert found[key] == defaults[key], key


@BY_NAME
def test_every_option_is_checked_by_the_constructor(name: str, method: Method) -> None:
    """A word that is none of the choices, and a number just below the least."""
    cls, options = TESTED[method.class_name]
    for key, option in method.options.items():
        value: Any = "neither" if option.choices else option.low - 1
        with pytest.raises(ValueError, match=key) as error:
            cls(nn.SequentialCell(nn.Dense(2, 2)), 0.1, **{**options, key: value})
        assert repr(value) in str(error.value)
        if option.above:
            with pytest.raises(ValueError, match=key):
                cls(nn.SequentialCell(nn.Dense(2, 2)), 0.1, **{**options, key: option.low})


def test_checked_options_come_back_in_order() -> None:
    given = {"full_refresh_interval": None, "alpha": 1, "rescale": "trace"}
    assert check_options("smkfac", **given) == (None, 1.0, "trace")
    with pytest.raises(TypeError, match="full_refreshes"):
        check_options("smkfac", full_refreshes=None)
