"""The optimizer section of a recipe: the optimizer and its hyperparameters."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

from model_zoo.common.errors import RecipeError
from model_zoo.common.methods import METHODS
from model_zoo.common.schedules import SCHEDULES, Constant, Schedule
from model_zoo.common.schema import (
    Value,
    Variant,
    boolean,
    integer,
    list_of,
    number,
    one_of,
    optional,
    pattern,
    setting,
)

# One interval, or a mapping from the first step at which an interval applies to that interval.
Interval = Union[int, dict[int, int]]

_MOMENTUM = number(least=0, below=1)
_POSITIVE = number(above=0)
_NOT_NEGATIVE = number(least=0)


def _interval(value: Any) -> Interval:
    if not isinstance(value, Mapping):
        steps: int = integer(1).convert(value)
        return steps
    firsts = [integer(0).convert(_from_json(first)) for first in value]
    intervals = dict(zip(firsts, map(integer(1).convert, value.values())))
    if 0 not in intervals or len(intervals) < len(firsts):
        raise ValueError
    return dict(sorted(intervals.items()))


def _from_json(key: Any) -> Any:
    """The first step of an interval. A recipe stored as JSON has string keys."""
    return int(key) if isinstance(key, str) and re.fullmatch("0|[1-9][0-9]{0,9}", key) else key


_INTERVAL = Value(
    "an integer of at least 1, or a mapping from first steps (0 included) to such integers", _interval
)


@dataclass(frozen=True)
class SGDMOptions:
    """mindspore.nn.Momentum (heavy ball), or mindspore.nn.SGD with `nesterov`.

    On CPU, nn.Momentum of MindSpore 2.10 accepts use_nesterov and ignores it.
    """

    name: str = setting(one_of(["sgdm"]))
    learning_rate: float = setting(_POSITIVE)
    momentum: float = setting(_MOMENTUM, 0.9)
    nesterov: bool = setting(boolean, False)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)

    def __post_init__(self) -> None:
        """Checks that Nesterov's step has a momentum.

        Raises:
            RecipeError: `nesterov` is true and `momentum` is 0.
        """
        if self.nesterov and self.momentum == 0:
            raise RecipeError(
                f"optimizer.nesterov is {self.nesterov!r}; accepted with optimizer.momentum 0: false."
            )


@dataclass(frozen=True)
class AdamOptions:
    """mindspore.nn.Adam."""

    name: str = setting(one_of(["adam"]))
    learning_rate: float = setting(_POSITIVE)
    beta1: float = setting(number(above=0, below=1), 0.9)
    beta2: float = setting(number(above=0, below=1), 0.999)
    eps: float = setting(_POSITIVE, 1e-8)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)


@dataclass(frozen=True)
class AdamWOptions:
    """AdamW: decoupled weight decay, moments with bias correction (model_zoo/common/adamw.py)."""

    name: str = setting(one_of(["adamw"]))
    learning_rate: float = setting(_POSITIVE)
    beta1: float = setting(number(above=0, below=1), 0.9)
    beta2: float = setting(number(above=0, below=1), 0.999)
    eps: float = setting(_POSITIVE, 1e-6)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)


@dataclass(frozen=True)
class MomentumRule:
    """The optimizer's own momentum step, at its learning rate."""

    name: str = setting(one_of(["momentum"]), "momentum")


FirstOrderRule = Union[MomentumRule, AdamWOptions]


@dataclass(frozen=True)
class SecondOrderOptions:
    """The options shared by all optimizers of ms_kfac, documented at ms_kfac.KFAC.

    `factor_interval` and `inverse_interval` may be mappings, as in ms_kfac.IntervalSchedule. A plain number
    has a warm-up, as in ms_kfac.WarmUpInterval; `{0: 100}` has none. `damping_schedule` scales `damping` as
    the recipe's `schedule` scales the learning rate. `first_order` is the rule of parameters without a
    curvature block: `{name: momentum}`, or the options of `adamw`, whose learning rate `schedule` also
    scales.
    """

    name: str = setting(one_of(METHODS))
    learning_rate: float = setting(_POSITIVE)
    momentum: float = setting(_MOMENTUM, 0.9)
    nesterov: bool = setting(boolean, False)
    weight_decay: float = setting(_NOT_NEGATIVE, 0.0)
    decoupled_weight_decay: bool = setting(boolean, False)
    damping: float = setting(_POSITIVE, 0.1)
    # RUF009: `setting` makes a dataclasses.field.
    damping_schedule: Schedule = setting(Variant(SCHEDULES), Constant())  # noqa: RUF009
    factor_decay: float = setting(number(least=0, below=1), 0.95)
    factor_interval: Interval = setting(_INTERVAL, 10)  # noqa: RUF009
    inverse_interval: Interval = setting(_INTERVAL, 100)  # noqa: RUF009
    kl_clip: float | None = setting(optional(_POSITIVE), 3e-4)
    fisher: str = setting(one_of(["empirical", "sampled"]), "empirical")
    sharing: str = setting(one_of(["expand", "reduce"]), "expand")
    normalization: str = setting(one_of(["first_order", "unit_wise"]), "first_order")
    first_order: FirstOrderRule = setting(  # noqa: RUF009
        Variant({"momentum": MomentumRule, "adamw": AdamWOptions}), MomentumRule()
    )
    averaging: float | None = setting(optional(number(least=0, below=1)), None)
    skip: tuple[str, ...] = setting(list_of(pattern, "a list of regular expressions on layer names"), ())


def _rule(option: Any) -> Value:
    if option.choices:
        return one_of(option.choices)
    if option.whole:
        rule = integer(int(option.low))
    else:
        most = option.high if option.high < math.inf else None
        rule = number(**{"above" if option.above else "least": option.low}, most=most)
    return optional(rule) if option.optional else rule


def _options_of(method: Any) -> type[SecondOrderOptions]:
    fields = {name: setting(_rule(option), option.default) for name, option in method.options.items()}
    shared = {field.name: field.metadata["rule"] for field in dataclasses.fields(SecondOrderOptions)}
    for name, default in method.defaults.items():
        rule = shared[name]
        fields[name] = setting(optional(rule) if default is None else rule, default)
    return dataclasses.make_dataclass(
        f"{method.class_name}Options",
        [(name, Any, field) for name, field in fields.items()],
        bases=(SecondOrderOptions,),
        namespace={"__doc__": f"ms_kfac.{method.class_name}: {method.description}."},
        frozen=True,
    )


OptimizerOptions = Union[SGDMOptions, AdamOptions, AdamWOptions, SecondOrderOptions]
OPTIMIZERS: dict[str, Any] = {
    "sgdm": SGDMOptions,
    "adam": AdamOptions,
    "adamw": AdamWOptions,
    **{name: _options_of(method) for name, method in METHODS.items()},
}
