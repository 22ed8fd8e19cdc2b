"""Statistics of one layer: the native and the composed form against each other and against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops import statistics as module
from ms_kfac.ops.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics import BESIDE_FACTORS, GRADIENTS, INPUTS, StatisticsOptions
from tests.oracle.factors import conv_factors, dense_factors
from tests.oracle.patches import Geometry
from tests.support.native import needs_native
from tests.support.statistics import (
    OPTIONS,
    add,
    assert_close,
    convolutions,
    operators_of,
    state_of,
    statistics,
)

pytestmark = needs_native("kronecker_statistics")


def check(
    operators: Any,
    options: StatisticsOptions,
    x: np.ndarray,
    dout: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    locations: int,
) -> None:
    """Both forms against factors of per-sample gradients g = dout (times N and the scale of `options`)."""
    samples = len(x) if x.ndim > 1 else 1
    scale = options.gradient_scale * (samples if options.mean_reduction else 1.0)
    counted = 1 if options.sharing == "reduce" else locations
    A, G = factors
    expected = [A * samples, samples, G * samples * counted * scale**2, samples * counted]
    for native in (True, False):
        state = state_of([A.shape, (), G.shape, ()])
        found = add(statistics(KroneckerStatistics, operators, options, native), x, dout, state)
        for array, wanted in zip(found, expected):
            assert_close(array, np.asarray(wanted))


@settings(max_examples=25)
@given(geometry=convolutions(), options=OPTIONS, samples=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_convolution(geometry: Geometry, options: StatisticsOptions, samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((samples, geometry.in_channels, *geometry.image)) + 0.5).astype(np.float32)
    output = geometry.output_size()
    g = rng.standard_normal((samples, geometry.out_channels, *output)).astype(np.float32)
    factors = conv_factors(x, g, geometry, options.sharing)
    check(operators_of(geometry), options, x, g, factors, output[0] * output[1])


@settings(max_examples=15)
@given(
    options=OPTIONS,
    leading=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
)
def test_any_dense_layer(
    options: StatisticsOptions, leading: list[int], widths: tuple[int, int], bias: bool
) -> None:
    rng = np.random.default_rng(sum(leading) + widths[0])
    x = (rng.standard_normal((*leading, widths[0])) + 0.5).astype(np.float32)
    g = rng.standard_normal((*leading, widths[1])).astype(np.float32)
    a, b = (x, g) if leading else (x[None], g[None])
    locations = int(np.prod(leading[1:]))
    factors = dense_factors(a, b, bias, options.sharing)
    check(DenseOperators(bias=bias), options, x, g, factors, locations)


# More channels than tests against plain loops could have, and both ways of summing over patches.
@pytest.mark.parametrize("channels, size, stride", [(70, 8, 1), (24, 13, 2), (40, 5, 1), (3, 30, 1)])
def test_large_convolution(channels: int, size: int, stride: int, rng: np.random.Generator) -> None:
    geometry = Geometry(channels, 9, stride=(stride, stride), image=(size, size))
    x = rng.standard_normal((20, channels, size, size), dtype=np.float32)
    g = rng.standard_normal((20, 9, *geometry.output_size()), dtype=np.float32)
    options = StatisticsOptions(sharing="expand", mean_reduction=False, gradient_scale=1.0)
    d = channels * 9
    found = [
        add(
            statistics(KroneckerStatistics, operators_of(geometry), options, native),
            x,
            g,
            state_of([(d, d), (), (9, 9), ()]),
        )
        for native in (True, False)
    ]
    for native_array, composed_array in zip(*found):
        assert_close(native_array, composed_array)
    np.testing.assert_array_equal(found[0][0], found[0][0].T)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_modes_and_types_and_repeated_batches(mode: int, kind: Any, rng: np.random.Generator) -> None:
    geometry = Geometry(3, 2, bias=True)
    x = rng.standard_normal((4, 3, 6, 6)).astype(kind)
    g = rng.standard_normal((4, 2, 6, 6)).astype(kind)
    A, G = conv_factors(x, g, geometry)
    # The factor that a loss scale of 1024 asks for.
    options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1 / 1024)
    operator = statistics(KroneckerStatistics, operators_of(geometry), options, native=True)
    state = state_of([A.shape, (), G.shape, ()], value=2.0)
    for _ in range(2):
        found = add(operator, x, g, state)
    scale = (4 / 1024) ** 2
    for array, wanted in zip(found, [A * 8 + 2, 10, G * 4 * 36 * 2 * scale + 2, 4 * 36 * 2 + 2]):
        assert_close(array, np.asarray(wanted))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("separate", [True, False])
def test_gate(mode: int, separate: bool, native: bool) -> None:
    options = StatisticsOptions("expand", mean_reduction=False, gradient_scale=1.0, separate=separate)
    operator = statistics(KroneckerStatistics, DenseOperators(bias=False), options, native)
    x, g = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    for gate in range(2 * BESIDE_FACTORS):
        found = add(operator, x, g, state_of([(3, 3), (), (4, 4), ()]), gate)
        asked = gate % BESIDE_FACTORS
        inputs = asked & INPUTS if separate else asked
        gradients = asked & GRADIENTS if separate else asked
        for array, changed in zip(found, [inputs, inputs, gradients, gradients]):
            np.testing.assert_array_equal(array, np.full(array.shape, 2.0 if changed else 0.0))


def test_composed_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_native", lambda name: False)
    operators = DenseOperators(bias=True)
    options = StatisticsOptions("expand", mean_reduction=False, gradient_scale=1.0)
    operator = KroneckerStatistics(
        operators.activations(False),
        operators.gradients(False),
        operators.second_moment(),
        channels_first=False,
        options=options,
        geometry=operators.native_geometry(),
    )
    assert not operator.native
