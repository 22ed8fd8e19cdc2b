"""Statistics of one layer: the kernel and the fallback against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.statistics import layer_statistics as module
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import (
    CORRECTED_EIGENVALUES,
    GRADIENTS,
    INPUTS,
    STAGED_WEIGHTS,
    StatisticsOptions,
)
from tests.oracle.factors import conv_factors, dense_factors
from tests.oracle.patches import Geometry
from tests.support.forms import forms_of, native_and_fallback
from tests.support.native import needs_native
from tests.support.statistics import (
    OPTIONS,
    STALE,
    assert_close,
    convolution_batches,
    dense_batches,
    operators_of,
    parameters,
    record,
    reset,
    stage,
    stale,
    statistics,
)

both_forms = native_and_fallback("kronecker_statistics")
EXPAND = StatisticsOptions(sharing="expand", mean_reduction=False, gradient_scale=1.0)


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
    weights = [samples, samples * (1 if options.sharing == "reduce" else locations)]
    A, G = factors
    for native in forms_of("kronecker_statistics"):
        operator = statistics(KroneckerStatistics, operators, options, native)
        state = parameters([*stale(A.shape, G.shape), record(2)])
        found = stage(operator, x, dout, state, INPUTS)
        assert_close(found[0], A * weights[0])
        assert_close(found[1], G * weights[1] * scale**2)
        np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], weights)


@settings(max_examples=25)
@given(batch=convolution_batches(), options=OPTIONS)
def test_any_convolution(batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    geometry, x, g = batch
    factors = conv_factors(x, g, geometry, options.sharing)
    check(operators_of(geometry), options, x, g, factors, int(np.prod(g.shape[2:])))


@settings(max_examples=15)
@given(batch=dense_batches(least_axes=0), options=OPTIONS)
def test_any_dense_layer(batch: tuple[bool, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    bias, x, g = batch
    a, b = (x, g) if x.ndim > 1 else (x[None], g[None])
    factors = dense_factors(a, b, bias, options.sharing)
    check(DenseOperators(bias=bias), options, x, g, factors, int(np.prod(x.shape[1:-1])))


# More channels than tests against plain loops could have, and both ways of summing over patches.
@needs_native("kronecker_statistics")
@pytest.mark.parametrize("channels, size, stride", [(70, 8, 1), (24, 13, 2), (40, 5, 1), (3, 30, 1)])
def test_large_convolution(channels: int, size: int, stride: int, rng: np.random.Generator) -> None:
    geometry = Geometry(channels, 9, stride=(stride, stride), image=(size, size))
    x = rng.standard_normal((20, channels, size, size), dtype=np.float32)
    g = rng.standard_normal((20, 9, *geometry.output_size()), dtype=np.float32)
    d = channels * 9
    found = [
        stage(
            statistics(KroneckerStatistics, operators_of(geometry), EXPAND, native),
            x,
            g,
            parameters([*stale((d, d), (9, 9)), record(2)]),
        )
        for native in (True, False)
    ]
    for native_array, fallback_array in zip(*found):
        assert_close(native_array, fallback_array)
    np.testing.assert_array_equal(found[0][0], found[0][0].T)


@both_forms
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_modes_and_types_and_micro_batches(
    mode: int, native: bool, kind: Any, rng: np.random.Generator
) -> None:
    """Two passes of one step, announced by a period of two."""
    geometry = Geometry(3, 2, bias=True)
    x = rng.standard_normal((4, 3, 6, 6)).astype(kind)
    g = rng.standard_normal((4, 2, 6, 6)).astype(kind)
    A, G = conv_factors(x, g, geometry)
    options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=2.0)
    operator = statistics(KroneckerStatistics, operators_of(geometry), options, native)
    state = parameters([*stale(A.shape, G.shape), record(2, period=2)])
    for _ in range(2):
        found = stage(operator, x, g, state)
    assert_close(found[0], A * 8)
    assert_close(found[1], G * 4 * 36 * 2 * (4 * 2.0) ** 2)
    np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], [8, 4 * 36 * 2])


@both_forms
@pytest.mark.parametrize("separate", [True, False])
def test_gate(mode: int, separate: bool, native: bool) -> None:
    options = StatisticsOptions("expand", mean_reduction=False, gradient_scale=1.0, separate=separate)
    operator = statistics(KroneckerStatistics, DenseOperators(bias=False), options, native)
    x, g = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    initial = [*stale((3, 3), (4, 4)), record(2)]
    state = parameters(initial)
    for gate in range(2 * CORRECTED_EIGENVALUES):
        reset(state, initial)
        found = stage(operator, x, g, state, gate)
        asked = gate % CORRECTED_EIGENVALUES
        inputs = bool(asked & INPUTS if separate else asked)
        gradients = bool(asked & GRADIENTS if separate else asked)
        for array, changed in zip(found, [inputs, gradients]):
            np.testing.assert_array_equal(array, np.full(array.shape, 2.0 if changed else STALE))
        np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], [2.0 * inputs, 2.0 * gradients])
        assert found[2][0] == (asked > 0)


def test_the_fallback_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_native", lambda name: False)
    assert not KroneckerStatistics(DenseOperators(bias=True), EXPAND).native
