"""One batch's statistics by the operator alone: every layer, reduction, scale and gate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.ops.statistics.layer_statistics import (
    EVERYTHING,
    GRADIENTS,
    INPUTS,
    STAGED_WEIGHTS,
    StatisticsOptions,
)
from ms_kfac.ops.statistics.sherman_morrison_statistics import ShermanMorrisonStatistics
from tests.oracle.factors import conv_factors
from tests.oracle.patches import Geometry
from tests.support.forms import forms_of, native_and_fallback
from tests.support.layer_bank import CASES, Case, build, layers_of
from tests.support.statistics import OPTIONS as ANY_OPTIONS
from tests.support.statistics import (
    STALE,
    assert_close,
    convolution_batches,
    grouped_convolution,
    operators_of,
    parameters,
    random_shapes,
    record,
    stage,
    stale,
    statistics,
)

MEAN = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)


def start(case: Case, full: bool, period: int = 1) -> list[np.ndarray]:
    """The state before the first pass."""
    groups, A, G = case.groups, case.d_in + case.bias, case.d_out
    if case.geometry is not None:
        A = int(np.prod(case.geometry.weight_shape[1:])) + case.geometry.bias
        G = case.geometry.out_channels // groups
    leading = (groups,) if groups > 1 else ()
    shapes = [(*leading, A, A), (*leading, G, G), (*leading, A), (*leading, G)]
    return [*stale(*shapes), record(4, period), np.array(float(full))]


def run(
    case: Case,
    options: StatisticsOptions,
    initial: list[np.ndarray],
    parts: list[tuple[np.ndarray, np.ndarray]],
    gate: int = EVERYTHING,
    scale: float = 1.0,
) -> list[np.ndarray]:
    """The state after these micro-batches, each with the gradients that its own reduced loss has.

    By the native form where there is one, which is held to the fallback here.
    """
    layer = layers_of(build([case], np.random.default_rng(0)))[0]
    results = []
    for native in forms_of("sherman_morrison_statistics"):
        operator = statistics(ShermanMorrisonStatistics, layer.operators, options, native)
        own = parameters(initial)
        for x, g in parts:
            dout = (g * scale / (len(x) if options.mean_reduction else 1)).astype(np.float32)
            found = stage(operator, x, dout, own, gate)
        results.append(found)
    for first, second in zip(results[0], results[-1]):
        assert_close(first, second)
    return results[0]


def assert_statistics(
    case: Case,
    found: list[np.ndarray],
    x: np.ndarray,
    g: np.ndarray,
    full: bool = True,
    sharing: str = "expand",
) -> None:
    pairs = case.factors(x, g, sharing)
    weights = found[4][STAGED_WEIGHTS:]
    for letter in range(2):
        factors = np.stack([pair[letter] for pair in pairs])
        diagonal = found[letter + 2].reshape(factors.shape[:2]) / weights[letter + 2]
        # Sums of at most a few hundred float32 products.
        np.testing.assert_allclose(diagonal, np.einsum("gii->gi", factors), rtol=1e-5)
        if full:
            matrix = found[letter].reshape(factors.shape) / weights[letter]
            np.testing.assert_allclose(matrix, factors, rtol=0, atol=1e-5 * np.abs(factors).max())
        else:
            assert (found[letter] == STALE).all()
            assert weights[letter] == 0


OPTIONS = {
    "mean": (MEAN, 1.0),
    "sum": (dataclasses.replace(MEAN, mean_reduction=False), 1.0),
    "scale": (dataclasses.replace(MEAN, gradient_scale=1 / 1024), 1024.0),
    "reduce": (dataclasses.replace(MEAN, sharing="reduce"), 1.0),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("full", [True, False])
def test_equal_the_definition(name: str, full: bool, rng: np.random.Generator) -> None:
    options, scale = OPTIONS[name]
    for case in CASES:
        x, g = case.batch(6, rng)
        found = run(case, options, start(case, full), [(x, g)], scale=scale)
        assert_statistics(case, found, x, g, full, options.sharing)


@pytest.mark.parametrize("full", [True, False])
def test_micro_batches_add_up(full: bool, rng: np.random.Generator) -> None:
    for case in CASES:
        x, g = case.batch(7, rng)
        found = run(case, MEAN, start(case, full, 2), [(x[:2], g[:2]), (x[2:], g[2:])])
        assert_statistics(case, found, x, g, full)


@pytest.mark.parametrize(
    ("separate", "gate"),
    [(False, 0), (False, EVERYTHING), (True, 0), (True, INPUTS), (True, GRADIENTS), (True, EVERYTHING)],
)
def test_gate_codes(separate: bool, gate: int, rng: np.random.Generator) -> None:
    case = CASES[0]
    options = dataclasses.replace(MEAN, separate=separate)
    for full in (True, False):
        found = run(case, options, start(case, full), [case.batch(6, rng)], gate)
        weights = found[4][STAGED_WEIGHTS:]
        taken = (bool(gate & INPUTS), bool(gate & GRADIENTS))
        assert tuple((array != STALE).any() for array in found[2:4]) == taken
        assert tuple(weights[2:] > 0) == taken
        expected = taken if full else (False, False)
        assert tuple((array != STALE).any() for array in found[:2]) == expected
        assert tuple(weights[:2] > 0) == expected


@settings(max_examples=8)
@random_shapes
def test_random_shapes(
    samples: int, channels: int, kernel: int, locations: int, groups: int, bias: bool
) -> None:
    rng = np.random.default_rng(samples + 10 * channels + 100 * kernel)
    shape = grouped_convolution(channels, kernel, locations, groups, bias)
    for case in (Case(shape), Case(d_in=channels, d_out=kernel, bias=bias, middle=(locations,) * groups)):
        x, g = case.batch(samples, rng)
        assert_statistics(case, run(case, MEAN, start(case, True), [(x, g)]), x, g)


@settings(max_examples=25)
@given(batch=convolution_batches(), options=ANY_OPTIONS, full=st.booleans())
def test_any_convolution(
    batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions, full: bool
) -> None:
    geometry, x, g = batch
    samples, locations = len(x), int(np.prod(g.shape[2:]))
    A, G = conv_factors(x, g, geometry, options.sharing)
    scale = options.gradient_scale * (samples if options.mean_reduction else 1.0)
    G_count = samples * (1 if options.sharing == "reduce" else locations)
    A, G = A * samples, G * G_count * scale**2
    diagonals = [np.diagonal(factor, axis1=-2, axis2=-1) for factor in (A, G)]
    weights = [full * samples, full * G_count, samples, G_count]
    for native in forms_of("sherman_morrison_statistics"):
        operator = statistics(ShermanMorrisonStatistics, operators_of(geometry), options, native)
        arrays = stale(A.shape, G.shape, *(diagonal.shape for diagonal in diagonals))
        found = stage(operator, x, g, parameters([*arrays, record(4), np.array(float(full))]))
        for array, wanted in zip(found, [A, G] if full else arrays[:2]):
            assert_close(array, wanted)
        for array, wanted in zip(found[2:], diagonals):
            assert_close(array, wanted)
        np.testing.assert_array_equal(found[4][STAGED_WEIGHTS:], weights)


@native_and_fallback("sherman_morrison_statistics")
def test_modes(mode: int, native: bool, rng: np.random.Generator) -> None:
    geometry = Geometry(3, 2, bias=True)
    x = rng.standard_normal((4, 3, 6, 6)).astype(np.float32)
    g = rng.standard_normal((4, 2, 6, 6)).astype(np.float32)
    A, G = conv_factors(x, g, geometry)
    operator = statistics(ShermanMorrisonStatistics, operators_of(geometry), MEAN, native)
    arrays: list[Any] = stale(A.shape, G.shape, A.shape[:1], G.shape[:1])
    state = parameters([*arrays, record(4, period=2), 0.0])
    for _ in range(2):
        found = stage(operator, x, g / 4, state)
    for array, wanted in zip(found[2:4], (A * 8, G * 8 * 36)):
        assert_close(array, np.diagonal(wanted))
    for array in found[:2]:
        assert (array == STALE).all()
