"""Statistics of one SKFAC layer: the kernel and the fallback against factors in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.statistics.factor_ranks import FactorRanks
from ms_kfac.ops.statistics.layer_statistics import GRADIENTS, INPUTS, STAGED_WEIGHTS, StatisticsOptions
from ms_kfac.ops.statistics.skfac_statistics import SKFACOptions, SKFACStatistics
from tests.oracle.factors import dense_factors
from tests.oracle.patches import Geometry
from tests.oracle.skfac import reduced_conv_factors
from tests.support.forms import forms_of, native_and_fallback
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
)

Factors = tuple[np.ndarray, np.ndarray]
PLAIN = StatisticsOptions("expand", mean_reduction=False, gradient_scale=1.0)


def statistics(
    operators: Any, groups: int, options: StatisticsOptions, spatial: str, factors: Factors, native: bool
) -> SKFACStatistics:
    """The operator in its native form or its fallback; the first batch fixes the ranks."""
    ranks = FactorRanks("layer", tuple(factor.shape[-1] for factor in factors), 1, lambda: (0, 0))
    operator = SKFACStatistics(operators, groups, options, SKFACOptions(spatial), ranks, native=native)
    assert operator.native == native
    return operator


def check(operator: SKFACStatistics, x: np.ndarray, dout: np.ndarray, factors: Factors, rows: int) -> None:
    """What one pass leaves: `rows` rows, or the sum of their products."""
    sizes = [factor.shape[-1] for factor in factors]
    state = parameters([*stale(*(factor.shape for factor in factors)), record(4)])
    found = stage(operator, x, dout, state)
    for held, factor, size in zip(found, factors, sizes):
        if rows < size:
            assert not held[..., rows:, :].any()
            held = np.swapaxes(held, -1, -2) @ held
        assert_close(held, factor * rows)
    ranks = [min(rows, size) for size in sizes]
    np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], [rows, rows, *ranks])


def gradient_scale(options: StatisticsOptions, samples: int) -> float:
    """Per-sample gradients over dout."""
    return options.gradient_scale * (samples if options.mean_reduction else 1.0)


@settings(max_examples=25)
@given(batch=convolution_batches(), options=OPTIONS, spatial=st.sampled_from(["sum", "mean"]))
def test_any_convolution(
    batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions, spatial: str
) -> None:
    geometry, x, dout = batch
    g = dout.astype(np.float64) * gradient_scale(options, len(x))
    factors = reduced_conv_factors(x, g, geometry, spatial)
    for native in forms_of("skfac_statistics"):
        operator = statistics(operators_of(geometry), geometry.groups, options, spatial, factors, native)
        check(operator, x, dout, factors, len(x))


@settings(max_examples=25)
@given(batch=dense_batches(least_axes=0), options=OPTIONS)
def test_any_dense_layer(batch: tuple[bool, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    bias, x, dout = batch
    a, b = (x, dout) if x.ndim > 1 else (x[None], dout[None])
    factors = dense_factors(a, b * np.float64(gradient_scale(options, len(a))), bias, options.sharing)
    rows = len(a) if options.sharing == "reduce" else int(np.prod(a.shape[:-1]))
    for native in forms_of("skfac_statistics"):
        operator = statistics(DenseOperators(bias=bias), 1, options, "sum", factors, native)
        check(operator, x, dout, factors, rows)


@native_and_fallback("skfac_statistics")
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_modes_and_types(mode: int, native: bool, kind: Any, rng: np.random.Generator) -> None:
    geometry = Geometry(3, 2, bias=True)
    x = rng.standard_normal((4, 3, 6, 6)).astype(kind)
    dout = rng.standard_normal((4, 2, 6, 6)).astype(kind)
    factors = reduced_conv_factors(x, dout, geometry, "sum")
    check(statistics(operators_of(geometry), 1, PLAIN, "sum", factors, native), x, dout, factors, 4)


@native_and_fallback("skfac_statistics")
@pytest.mark.parametrize("separate", [True, False])
def test_gate(mode: int, separate: bool, native: bool) -> None:
    options = StatisticsOptions("expand", mean_reduction=False, gradient_scale=1.0, separate=separate)
    x, dout = np.ones((2, 2), np.float32), np.ones((2, 4), np.float32)
    shapes = (2, 2), (4, 4)
    factors = np.zeros(shapes[0]), np.zeros(shapes[1])
    operator = statistics(DenseOperators(bias=False), 1, options, "sum", factors, native)
    initial = [*stale(*shapes), record(4)]
    state = parameters(initial)
    for gate in range(INPUTS + GRADIENTS + 1):
        reset(state, initial)
        found = stage(operator, x, dout, state, gate)
        asked = [bool(gate & flag if separate else gate) for flag in (INPUTS, GRADIENTS)]
        A = np.full((2, 2), 2.0 if asked[0] else STALE)
        G = np.repeat([[1.0], [0.0]], 2, axis=0) * np.ones(4) if asked[1] else np.full((4, 4), STALE)
        np.testing.assert_array_equal(found[0], A)
        np.testing.assert_array_equal(found[1], G)
        np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], np.array([2.0, 2, 2, 2]) * [*asked, *asked])
