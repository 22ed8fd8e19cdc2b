"""Second moments of patches, computed from products of shifted images and from unfolded patches.

Both forms have the same tolerance. The products that form an element are only added, never subtracted. So
their additions are those of one sum over all locations, in another order.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.kernels.cuda.test_kronecker_statistics import Statistics
from tests.support.cuda_statistics import LAG_LAYERS, LAYERS, Layer

FORMS = ("unfolded", "lags")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LAG_LAYERS)
def test_sums(operators: AotLibrary, name: str, form: str, rng: np.random.Generator) -> None:
    case = Statistics(LAG_LAYERS[name], rng)
    operator = case.operator(operators, patches=form)
    # Twice, to check that a launch resets its counters.
    operator.run()
    operator.run()
    for side in (0, 1):
        case.check(side, "float32", calls=2)


@pytest.mark.parametrize("name", ["conv3x3", "conv_groups", "small_image"])
def test_no_barrier_is_missing(
    operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int
) -> None:
    case = Statistics(LAG_LAYERS[name], rng)
    case.operator(operators, patches="lags").run()
    case.check(0, "float32")


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["conv3x3", "conv_wide"])
def test_tensor_cores(operators: AotLibrary, name: str, precision: str, rng: np.random.Generator) -> None:
    case = Statistics(LAG_LAYERS[name], rng)
    case.operator(operators, patches="lags", precision=precision).run()
    case.check(0, precision)
    case.check_rounded(0, case.a, precision)


def _random_layer(rng: np.random.Generator) -> Layer:
    kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
    top, bottom, left, right = (int(pad) for pad in rng.integers(0, 5, 4))
    # At least one location.
    height = int(rng.integers(max(1, kernel[0] - top - bottom), 8))
    width = int(rng.integers(max(1, kernel[1] - left - right), 8))
    groups = int(rng.integers(1, 3))
    return Layer(
        groups * int(rng.integers(1, 6)),
        groups,
        samples=int(rng.integers(1, 4)),
        size=(height, width),
        kernel=kernel,
        padding=(top, bottom, left, right),
        groups=groups,
        bias=bool(rng.integers(2)),
    )


def test_any_window(operators: AotLibrary, rng: np.random.Generator) -> None:
    summed = 0
    for _ in range(40):
        layer = _random_layer(rng)
        case = Statistics(layer, rng)
        try:
            operator = case.operator(operators, patches="lags")
        except AotError:
            continue
        operator.run()
        case.check(0, "float32")
        summed += 1
    assert summed > 20


def test_two_runs_give_the_same_bits(operators: AotLibrary) -> None:
    first, second = (Statistics(LAYERS["conv3x3"], np.random.default_rng(3)) for _ in range(2))
    for case in (first, second):
        case.operator(operators, patches="lags").run()
    np.testing.assert_array_equal(first.sums[0], second.sums[0])


@pytest.mark.parametrize("gate", [0, 1, 2])
def test_gates(operators: AotLibrary, gate: int, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv_groups"], rng)
    operator = case.operator(operators, patches="lags", separate=True)
    case.gate[...] = gate
    operator.run()
    for side, opened in ((0, gate == 1), (1, gate == 2)):
        if opened:
            case.check(side, "float32")
        else:
            case.check_untouched(side)
    # The counters must suit an open gate, and a new period begins.
    case.record[0] = 0
    case.gate[...] = 3
    operator.run()
    for side in (0, 1):
        case.check(side, "float32")


def _form_taken(library: AotLibrary, layer: Layer) -> str:
    """The form that an operator chooses by default, identified by the size of its workspace."""
    # Only shapes matter: nothing runs.
    x, dout = (np.empty(layer.shapes[name], np.float32) for name in ("x", "dout"))
    gate, one = np.empty((), np.int32), np.empty(1, np.float32)

    def sizes(**form: str) -> list[int]:
        own = {"separate": False, "precision": "float32", **layer.attributes(), **form}
        return library.operator("KroneckerStatistics", [x, dout, gate, *[one] * 3], [one], **own).sizes

    of_form = {form: sizes(patches=form) for form in FORMS}
    assert of_form["unfolded"] != of_form["lags"]
    (taken,) = (form for form in FORMS if of_form[form] == sizes())
    return taken


# Multiplications of each form, with whole tiles. With 64 channels: 15 tiles of 128 x 128 by patches, 13 of 64
# x 64 by lags. With 16 channels: 3 and 13. With 512 channels and few pixels the partial sums by lags cost
# more than the products.
@pytest.mark.parametrize(
    ("channels", "samples", "size", "form"),
    [(64, 4, 28, "lags"), (512, 8, 7, "lags"), (16, 4, 28, "unfolded"), (512, 1, 3, "unfolded")],
)
def test_the_cheaper_form_is_taken(
    operators: AotLibrary, channels: int, samples: int, size: int, form: str
) -> None:
    layer = Layer(channels, 4, kernel=(3, 3), padding=(1, 1, 1, 1), samples=samples, size=(size, size))
    assert _form_taken(operators, layer) == form


def test_what_has_no_lags_is_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    three = LAYERS["conv3x3"]
    many_taps = dataclasses.replace(three, kernel=(7, 7), size=(9, 9), padding=(0,) * 4, shapes={})
    tiny_image = dataclasses.replace(many_taps, size=(1, 1), padding=(4,) * 4, shapes={})
    strided = dataclasses.replace(three, stride=(1, 2), shapes={})
    dilated = dataclasses.replace(three, dilation=(2, 1), shapes={})
    for layer in (many_taps, tiny_image, strided, dilated, LAYERS["conv_reduce"], LAYERS["dense"]):
        case = Statistics(layer, rng)
        with pytest.raises(AotError, match='KroneckerStatistics: patches must be "unfolded" unless'):
            case.operator(operators, patches="lags")
        case.operator(operators).run()
        case.check(0, "float32")
    with pytest.raises(AotError, match="patches must be unfolded or lags, got tiles"):
        Statistics(three, rng).operator(operators, patches="tiles")


def test_other_shapes_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv3x3"], rng)
    operator = case.operator(operators, patches="lags")
    other = dataclasses.replace(LAYERS["conv3x3"], size=(7, 8), shapes={})
    operator.arrays[0], operator.arrays[1] = other.draw(rng)
    with pytest.raises(AotError, match="shapes must be those that the kernel was created with"):
        operator.run()
