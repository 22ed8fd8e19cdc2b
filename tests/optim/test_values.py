"""Wrong values of every option are refused by name, with the value and what is accepted."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Parameter, Tensor, nn

import ms_kfac
from ms_kfac.optim.methods import METHODS
from ms_kfac.parallel import Distribution
from ms_kfac.values import check_count, check_number

OPTIMIZERS = {method.class_name: method for method in METHODS.values()}
POLICIES = [
    ms_kfac.FixedInterval,
    ms_kfac.WarmUpInterval,
    ms_kfac.IntervalSchedule,
    ms_kfac.StaleStatistics,
    ms_kfac.TraceChange,
]
CLASSES = [
    *(getattr(ms_kfac, name) for name in OPTIMIZERS),
    *(*POLICIES, ms_kfac.AdamW, ms_kfac.LevenbergMarquardt, Distribution, ms_kfac.CurvatureMonitor),
]


def net() -> nn.Cell:
    return nn.SequentialCell(nn.Dense(2, 2))


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


NO_LIST: list[Any] = [
    *(b"ab", bytearray(b"1"), np.array(["a", "b"]), np.array("adam"), np.zeros((2, 2)), {1, 2}),
    *({"a": 1}, object(), Unprintable(), 1j, np.complex64(1), np.datetime64("2020")),
    *(np.timedelta64(5, "s"), Tensor(np.zeros((2, 2)), ms.float32)),
]
NEVER = [*NO_LIST, [], (), [None], [True], [[1.0], [2.0]]]
WORDS = ["", "x", "1", "0.1", "nan", "yes", "\n", "x" * 1000]
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")]
HUGE = [1e39, -1e39, 10**400, -(10**5000), 1e300, np.float64(1e39)]
VANISHING = [1e-50, 1e-320, -1e-50, np.float64(1e-46), 1e-39]
BOOLS = [True, False, np.bool_(True), np.array(False)]
NUMBERS = [*NEVER, *WORDS, *NOT_FINITE, *HUGE, *VANISHING, *BOOLS, -1, -1e-30]
LESS_THAN_ONE = [*NUMBERS, 1, 1.0, 1 - 1e-12, np.float32(1), np.array(1.0), 2.5]
COUNTS = [
    *(*NEVER, *WORDS, *NOT_FINITE, *BOOLS, 0, -1, 1.0, 2.5, 2**31, 2**70, 10**5000),
    *(np.int64(0), np.uint64(2**63), np.float32(2), np.array([1])),
]
NO_WORD = [*NEVER, *WORDS, *BOOLS, 0, 1.5, None]
NO_FLAG = [*NEVER, *WORDS, 0, 1, 1.5, None, np.int64(1)]
RATES = [*NUMBERS, *([value] for value in (-1.0, float("nan"), 1e39, "x", None, True, b"1", 10**400))]
DAMPINGS = [*RATES, 0, 0.0, [0.1, 0.0], [0.1, 1e-50], np.array([1e-50]), Tensor([0.1, -1.0])]
PATTERNS = [*NO_LIST, *WORDS, 1, [None], [b"a"], ["("], ["a{99999999999}"], ["a", 1], ["(" * 5000]]
OTHER_NET = nn.Dense(3, 3)


def once_twice(network: nn.Cell) -> Any:
    return [*network.trainable_params(), network[0].bias]


def group(**options: Any) -> Callable[[nn.Cell], Any]:
    return lambda network: [{"params": network.trainable_params(), **options}]


PARAMS: list[Any] = [
    *(once_twice, lambda network: OTHER_NET.trainable_params(), lambda network: iter(())),
    *(lambda network: [{"params": iter(())}], lambda network: [{}], lambda network: [{"lr": 0.1}]),
    lambda network: [{"params": (p for p in once_twice(network))}],
    lambda network: [{"params": network.trainable_params()}, {"order_params": [network[0].bias]}],
    lambda network: [{"params": network.trainable_params(), "order_params": [network[0].bias]}],
    lambda network: [{"params": network.trainable_params()}, network[0].bias],
    *(lambda network: network, lambda network: network[0].weight, lambda network: [b"0.weight"]),
    *(group(lr=-1), group(lr=b"ab"), group(lr=1e-50), group(lr=[]), group(lr=[0.1, float("nan")])),
    *(group(weight_decay="x"), group(weight_decay=1e39), group(weight_decay=True)),
    *(group(grad_centralization=1), group(learning_rate=0.1), group(**{"decay\n": 1})),
    lambda network: [
        {"params": [network[0].weight], "lr": [0.1, 0.1]},
        {"params": [network[0].bias], "lr": [0.1] * 3},
    ],
]
BLOCKS: list[Any] = [
    *(1, b"dense", [("dense", "first_order")], {b"dense": "first_order"}, {1: "first_order"}, "dense"),
    *({"dense": "second_order"}, {"dense": None}, {"dense": np.array(["first_order"])}, {"dense": int}),
    *({"(": "first_order"}, {"a{99999999999}": "first_order"}, {"dense": nn.ReLU()}, {"dense": b"a"}),
    {"dense": lambda *arguments, **options: 1},
]
PLACES = [*NEVER, 1.5, 1, "", " ", ".", "a..b", "a b", "ä", "a\n"]
INTERVALS = [*COUNTS, ms_kfac.FixedInterval, nn.ReLU()]
PHASES = [
    *(*COUNTS, {1: 1}, {0: 0}, {0: 2**70}, {0: 1, -1: 1}, {0: True}, {0: 1.5}, {0: b"1"}, {"0": 1}),
    *({0: 1, 2**40: 1}, {0: 1, 1.5: 1}),
]
SCALES = [*NUMBERS, 0, 0.0, 3e38, Parameter(Tensor([1.0, 2.0])), Parameter(Tensor(1)), nn.ReLU(), None]
POSITIVE = [*NUMBERS, 0, 0.0, np.float32(0), -0.0]

# What is wrong for each option, by its name. An option that is missing here fails the test: add its check to
# ms_kfac/optim/options.py or ms_kfac/values.py, and its wrong values here.
SHARED: dict[str, list[Any]] = {
    "learning_rate": RATES,
    "params": PARAMS,
    "momentum": LESS_THAN_ONE,
    "nesterov": NO_FLAG,
    "weight_decay": NUMBERS,
    "decoupled_weight_decay": NO_FLAG,
    "first_order": NO_WORD,
    "damping": DAMPINGS,
    "factor_decay": LESS_THAN_ONE,
    "factor_interval": INTERVALS,
    "inverse_interval": INTERVALS,
    "kl_clip": [value for value in DAMPINGS if value is not None],
    "fisher": NO_WORD,
    "sharing": NO_WORD,
    "reduction": NO_WORD,
    "loss_scale": SCALES,
    "accumulation_steps": COUNTS,
    "skip": PATTERNS,
    "averaging": LESS_THAN_ONE,
    "normalization": NO_WORD,
    "blocks": BLOCKS,
    "damping_split": NO_WORD,
    "verify": NO_WORD,
    "on_nonfinite": NO_WORD,
    "name": PLACES,
    "distribution": [*NEVER, *WORDS, 1],
}
OWN: dict[str, dict[str, list[Any]]] = {
    "FixedInterval": {"interval": COUNTS},
    "WarmUpInterval": {"interval": COUNTS},
    "IntervalSchedule": {"intervals": PHASES},
    "StaleStatistics": {"similarity": [*POSITIVE, 1e20]},
    "TraceChange": {"omega1": NUMBERS, "omega2": [*NUMBERS, 0.5], "interval": INTERVALS},
    "AdamW": {
        "learning_rate": RATES,
        "beta1": LESS_THAN_ONE,
        "beta2": LESS_THAN_ONE,
        "eps": POSITIVE,
        "weight_decay": NUMBERS,
    },
    "LevenbergMarquardt": {
        "initial": [*POSITIVE, 1e-9, 1e5],
        "interval": COUNTS,
        "decrease": [*LESS_THAN_ONE, 0.0],
        "minimum": [*POSITIVE, 1e5],
        "maximum": [*POSITIVE, 1e-9],
    },
    "Distribution": {"exchange": NO_WORD, "collective": NO_WORD},
    # The others are functions, paths and streams.
    "CurvatureMonitor": {
        "interval": COUNTS,
        "traces": NO_FLAG,
        "eigenvalues": NO_FLAG,
        "summary": NO_FLAG,
    },
}
UNCHECKED = {"CurvatureMonitor": {"write", "path"}}
OTHER_ARGUMENTS = {"LevenbergMarquardt": {"initial": 1.0}}


def names_of(cls: type) -> list[str]:
    """The options in the signatures of a class; an optimizer's, and those that it shares with K-FAC."""
    found = dict(inspect.signature(cls.__init__).parameters)
    if cls.__name__ in OPTIMIZERS:
        found = {**inspect.signature(ms_kfac.optim.base.SecondOrderOptimizer.__init__).parameters, **found}
    skipped = {"self", "network", "positional", "options", *UNCHECKED.get(cls.__name__, ())}
    return [name for name in found if name not in skipped]


def wrong_values(cls: type, name: str) -> list[Any] | None:
    """Those of an option; what is wrong for a method's own option follows from the registry."""
    if cls.__name__ in OWN:
        return OWN[cls.__name__].get(name)
    option = OPTIMIZERS[cls.__name__].options.get(name)
    if option is None or name in SHARED:
        return SHARED.get(name)
    if option.choices:
        return NO_WORD
    return COUNTS if option.whole else POSITIVE if option.above else NUMBERS


NET = net()
CASES = [(cls, name) for cls in CLASSES for name in names_of(cls)]


def refuse(cls: type, name: str, value: Any) -> None:
    """Construct with one wrong value, and hold the message to the pattern."""
    options = {**OTHER_ARGUMENTS.get(cls.__name__, {}), name: value}
    arguments: list[Any] = []
    if cls.__name__ in OPTIMIZERS:
        # One network for all: a refusal leaves it alone.
        network = NET
        arguments = [network, options.pop("learning_rate", 0.1)]
        if name == "params":
            options[name] = value(network)
    with pytest.raises((TypeError, ValueError)) as error:
        cls(*arguments, **options)
    message = str(error.value)
    assert type(error.value) in (TypeError, ValueError)
    assert "\n" not in message
    assert len(message) < 500
    # The option, what is accepted, the value.
    found = re.match(r"(\w+: )?(?P<option>[^,]*?)( of a group)? (must|is not accepted)\b.*, got .+", message)
    assert found is not None, message
    if not (cls.__name__ == "LevenbergMarquardt" and name in ("minimum", "maximum")):
        assert re.search(rf"\b{name}\b", message.partition(" must ")[0]), message


@pytest.mark.parametrize(("cls", "name"), CASES, ids=[f"{cls.__name__}-{name}" for cls, name in CASES])
def test_wrong_values_are_refused_by_name(
    cls: type, name: str, record_property: Callable[[str, object], None]
) -> None:
    values = wrong_values(cls, name)
    assert values is not None, f"{cls.__name__}: no test of the option {name}; see SHARED and OWN"
    record_property("inputs", len(values))
    for value in values:
        refuse(cls, name, value)


NUMBER_CASES = [
    case for case in CASES if any(wrong_values(*case) is kind for kind in (NUMBERS, LESS_THAN_ONE, POSITIVE))
]


@given(
    st.sampled_from(NUMBER_CASES),
    st.floats(max_value=-1e-45)
    | st.floats(min_value=3.5e38)
    | st.text()
    | st.binary()
    | st.just(float("nan")),
)
@settings(max_examples=300)
def test_any_wrong_number_is_refused_by_name(case: tuple[type, str], value: Any) -> None:
    refuse(*case, value)


def test_many_values_are_tried() -> None:
    assert sum(len(wrong_values(*case) or ()) for case in CASES) >= 5000


def test_an_option_without_wrong_values_is_told() -> None:
    """Options are found in signatures, so that a new one fails the test above."""

    class New(ms_kfac.KFAC):
        def __init__(self, network: nn.Cell, learning_rate: Any, *, unheard: int = 1, **options: Any) -> None:
            super().__init__(network, learning_rate, **options)

    New.__name__ = "KFAC"
    assert set(names_of(New)) - set(names_of(ms_kfac.KFAC)) == {"unheard"}
    assert wrong_values(New, "unheard") is None


FORMS = {
    "scalars": (np.float64, np.int64, np.bool_),
    "narrow scalars": (np.float32, np.uint8, np.bool_),
    "arrays without axes": (np.array, np.array, np.array),
}


@pytest.mark.parametrize("form", FORMS)
def test_numpy_scalars_are_the_numbers_that_they_hold(form: str) -> None:
    number, count, flag = FORMS[form]

    def optimizer(number: Any, count: Any, flag: Any) -> nn.Optimizer:
        adam = ms_kfac.AdamW(number(0.5), beta1=number(0.25), eps=number(0.125), weight_decay=number(0.5))
        policy = ms_kfac.TraceChange(
            number(0.5), number(0.25), interval=ms_kfac.IntervalSchedule({0: count(2), 9: count(5)})
        )
        return ms_kfac.SMKFAC(
            nn.SequentialCell(nn.Dense(2, 3), nn.LayerNorm((3,)), nn.Dense(3, 2)),
            number(0.25),
            momentum=number(0.5),
            nesterov=flag(True),
            weight_decay=number(0.125),
            decoupled_weight_decay=flag(True),
            first_order=adam,
            damping=number(0.5),
            factor_decay=number(0.75),
            factor_interval=count(10),
            inverse_interval=policy,
            kl_clip=number(0.25),
            loss_scale=number(64),
            accumulation_steps=count(2),
            averaging=number(0.5),
            full_refreshes=count(3),
            alpha=number(0.5),
            full_refresh_interval=count(7),
        )

    found, expected = optimizer(number, count, flag), optimizer(float, int, bool)
    assert found.summary() == expected.summary()
    for one, other in zip(found.get_parameters(), expected.get_parameters()):
        if one.name.startswith("smkfac"):
            np.testing.assert_array_equal(one.asnumpy(), other.asnumpy(), err_msg=one.name)
    for name in ("nesterov", "loss_scale", "accumulation_steps", "decoupled_weight_decay"):
        assert type(getattr(found, name)) is type(getattr(expected, name))
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize(
    "rates",
    [np.array([0.5, 0.25], np.float16), [np.float32(0.5), 0.25], iter([0.5, 0.25]), Tensor([0.5, 0.25])],
    ids=["array", "scalars", "iterator", "Tensor"],
)
def test_schedules_take_numbers_of_numpy(rates: Any) -> None:
    optimizer = ms_kfac.KFAC(net(), rates, damping=[np.float32(0.5), 0.25])
    np.testing.assert_array_equal(optimizer.damping.values.asnumpy(), [0.5, 0.25])
    np.testing.assert_array_equal(optimizer.learning_rate.learning_rate.asnumpy(), [0.5, 0.25])


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        (1e-50, "got 1e-50, which is 0 in float32"),
        (1e-39, "got 1e-39, which is 0 in float32"),
        (1e39, r"got 1e\+39, which is infinite in float32"),
        (10**400, "got 1000.* ... .*0000, which is infinite in float32"),
        (10**5000, "got a value of type int, which is infinite in float32"),
        (1 - 1e-12, "got 0.999999999999, which is 1 in float32"),
    ],
    ids=["0", "subnormal", "infinite", "long", "unprintable", "bound"],
)
def test_what_float32_changes_is_told(value: Any, ends: str) -> None:
    options = {"high": 1.0, "high_open": True} if 0.5 < value < 1 else {}
    with pytest.raises(ValueError, match=f"^kl_clip must be a number in .*, {ends}$"):
        check_number("kl_clip", value, low=0.0, low_open=True, **options)


def test_the_largest_and_smallest_are_taken() -> None:
    """float32's largest finite number, its smallest normal one, and the largest int32."""
    finite = np.finfo(np.float32)
    for value in (
        finite.max,
        float(finite.max),
        finite.tiny,
        float(np.nextafter(np.float32(1), np.float32(0))),
    ):
        assert check_number("x", value, low=0.0, low_open=True) == float(value)
    assert check_count("x", np.int64(2**31 - 1)) == 2**31 - 1
    with pytest.raises(
        ValueError, match="x must be an int of at least 1 and at most 2,147,483,647, got 2147483648"
    ):
        check_count("x", 2**31)


def test_a_long_schedule_names_the_number_that_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"got \[0\.1, 0\.1.* \.\.\. .*\] with nan at index 700$"):
        ms_kfac.KFAC(net(), [0.1] * 700 + [float("nan")] + [0.1] * 300)


def test_a_rate_may_fade_out_but_not_a_damping() -> None:
    ms_kfac.KFAC(net(), [0.1, 1e-50])
    with pytest.raises(ValueError, match=r"damping .*with 1e-50 at index 1, which is 0 in float32$"):
        ms_kfac.KFAC(net(), 0.1, damping=[0.1, 1e-50])


def test_an_iterator_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ms_kfac.values._LONGEST_ITERATOR", 100)
    with pytest.raises(ValueError, match=r"learning_rate must be .*, got an iterator of over 100 numbers"):
        ms_kfac.KFAC(net(), itertools.repeat(0.1))


def test_a_network_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^KFAC: the network must have trainable Parameters, got ReLU without"
    ):
        ms_kfac.KFAC(nn.ReLU(), 0.1)


def test_a_network_with_nothing_to_precondition_is_told() -> None:
    with pytest.warns(UserWarning, match="no layer of the network is preconditioned") as caught:
        ms_kfac.KFAC(nn.SequentialCell(nn.LayerNorm((3,))), 0.1)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_a_long_interval_of_levenberg_marquardt_needs_its_decrease() -> None:
    with pytest.raises(ValueError, match="decrease must be given for long intervals"):
        ms_kfac.LevenbergMarquardt(1.0, interval=2000)
    assert ms_kfac.LevenbergMarquardt(1.0, interval=2000, decrease=0.5).decrease == 0.5
