"""One batch's factors and second moments by the operator alone: layers, reductions, scale, gates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.statistics import layer_statistics as module
from ms_kfac.ops.statistics.eigenbasis_statistics import EigenbasisStatistics
from ms_kfac.ops.statistics.layer_statistics import (
    CORRECTED_EIGENVALUES,
    EVERYTHING,
    GRADIENTS,
    INPUTS,
    STAGED_WEIGHTS,
    StatisticsOptions,
)
from tests.oracle.eigenbasis import conv_gradients, dense_gradients, second_moments
from tests.oracle.factors import conv_factors, dense_factors
from tests.oracle.patches import Geometry
from tests.support.forms import forms_of, native_and_fallback
from tests.support.layer_bank import CASES, Case, build, layers_of
from tests.support.native import needs_native
from tests.support.statistics import OPTIONS as ANY_OPTIONS
from tests.support.statistics import (
    STALE,
    assert_close,
    convolution_batches,
    dense_batches,
    grouped_convolution,
    operators_of,
    parameters,
    random_shapes,
    record,
    reset,
    stage,
    statistics,
)

MEAN = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
POINT = Geometry(3, 4, (2, 3), pad_mode="valid", bias=True, image=(2, 3))
ALL_CASES = (*CASES, Case(POINT), Case(middle=(2, 3), bias=False))


def orthogonal(groups: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([np.linalg.qr(rng.standard_normal((dimension, dimension)))[0] for _ in range(groups)])


def run(
    case: Case,
    options: StatisticsOptions,
    parts: list[tuple[np.ndarray, np.ndarray]],
    gate: int = EVERYTHING,
    scale: float = 1.0,
) -> list[np.ndarray]:
    """The state after these micro-batches with a leading axis of groups; it starts with a random basis.

    By the native form where there is one, which is held to the fallback here.
    """
    layer = layers_of(build([case], np.random.default_rng(0)))[0]
    groups, A, G = layer.groups, layer.input_dimension, layer.output_dimension
    rng = np.random.default_rng(A)
    values = [np.full(shape, STALE) for shape in ((groups, A, A), (groups, G, G))]
    values += [record(3, len(parts)), orthogonal(groups, A, rng), orthogonal(groups, G, rng)]
    values += [np.full((groups, G, A), STALE)]
    if groups == 1:
        values = [value if value.ndim == 1 else value[0] for value in values]
    results = []
    for native in forms_of("eigenbasis_statistics"):
        operator = statistics(EigenbasisStatistics, layer.operators, options, native)
        state = parameters(values)
        for x, g in parts:
            dout = (g * scale / (len(x) if options.mean_reduction else 1)).astype(np.float32)
            found = stage(operator, x, dout, state, gate)
        results.append(found)
    for first, second in zip(results[0], results[-1]):
        assert_close(first, second)
    return [array[None] if groups == 1 and array.ndim == 2 else array for array in results[0]]


def assert_statistics(
    case: Case, found: list[np.ndarray], x: np.ndarray, g: np.ndarray, sharing: str = "expand"
) -> None:
    A_sum, G_sum, described, Q_A, Q_G, s_sum = found
    counts = described[STAGED_WEIGHTS:]
    for group, (A, G) in enumerate(case.factors(x, g, sharing)):
        s = second_moments(case.gradients(x, g)[group], Q_A[group], Q_G[group])
        averages = (A_sum[group] / counts[0], G_sum[group] / counts[1], s_sum[group] / counts[2])
        for average, expected in zip(averages, (A, G, s)):
            # Sums of at most a few hundred float32 products; squares of sums of them.
            np.testing.assert_allclose(average, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


OPTIONS = {
    "mean": (MEAN, 1.0),
    "sum": (dataclasses.replace(MEAN, mean_reduction=False), 1.0),
    "scale": (dataclasses.replace(MEAN, gradient_scale=1 / 1024), 1024.0),
    "reduce": (dataclasses.replace(MEAN, sharing="reduce"), 1.0),
    "separate": (dataclasses.replace(MEAN, separate=True), 1.0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_equal_the_definition(name: str, rng: np.random.Generator) -> None:
    options, scale = OPTIONS[name]
    for case in ALL_CASES:
        x, g = case.batch(6, rng)
        assert_statistics(case, run(case, options, [(x, g)], scale=scale), x, g, options.sharing)


def test_micro_batches_add_up(rng: np.random.Generator) -> None:
    for case in ALL_CASES:
        x, g = case.batch(7, rng)
        assert_statistics(case, run(case, MEAN, [(x[:2], g[:2]), (x[2:], g[2:])]), x, g)


@pytest.mark.parametrize(
    ("separate", "gate", "taken"),
    [
        (False, 0, ""),
        (False, EVERYTHING, "AGs"),
        (False, 4, "s"),
        (False, EVERYTHING + 4, "AGs"),
        (True, 0, ""),
        (True, INPUTS, "A"),
        (True, GRADIENTS, "Gs"),
        (True, EVERYTHING, "AGs"),
        (True, 4, "s"),
        (True, INPUTS + 4, "As"),
        (True, GRADIENTS + 4, "Gs"),
        (True, EVERYTHING + 4, "AGs"),
    ],
)
def test_gate_codes(separate: bool, gate: int, taken: str, rng: np.random.Generator) -> None:
    options = dataclasses.replace(MEAN, separate=separate)
    A, G, described, _, _, s = run(CASES[0], options, [CASES[0].batch(6, rng)], gate)
    for letter, array, count in zip("AGs", (A, G, s), described[STAGED_WEIGHTS:]):
        assert (array != STALE).any() == (letter in taken), letter
        assert count == (6 if letter in taken else 0), letter


@settings(max_examples=8)
@random_shapes
def test_random_shapes(
    samples: int, channels: int, kernel: int, locations: int, groups: int, bias: bool
) -> None:
    rng = np.random.default_rng(samples + 10 * channels + 100 * kernel)
    shape = grouped_convolution(channels, kernel, locations, groups, bias)
    for case in (Case(shape), Case(d_in=channels, d_out=kernel, bias=bias, middle=(locations,) * groups)):
        x, g = case.batch(samples, rng)
        assert_statistics(case, run(case, MEAN, [(x, g)]), x, g)


def check_forms(
    operators: Any,
    options: StatisticsOptions,
    x: np.ndarray,
    dout: np.ndarray,
    factors: tuple[np.ndarray, np.ndarray],
    dW: np.ndarray,
    locations: int,
) -> None:
    """Both forms against the definition: averages A and G of dout itself, gradients (g, N, d_out, d_in)."""
    groups, samples = dW.shape[:2]
    scale = options.gradient_scale * (samples if options.mean_reduction else 1.0)
    G_count = samples * (1 if options.sharing == "reduce" else locations)
    A_sum, G_sum = factors[0] * samples, factors[1] * G_count * scale**2
    rng = np.random.default_rng(3)
    shape = (lambda array: array[0]) if groups == 1 else np.asarray
    Q_A, Q_G = (orthogonal(groups, size, rng) for size in (dW.shape[3], dW.shape[2]))
    s_sum = np.stack([samples * second_moments(dW[i] * scale, Q_A[i], Q_G[i]) for i in range(groups)])
    stale = [np.full_like(array, STALE) for array in (A_sum, G_sum, shape(s_sum))]
    initial = [*stale[:2], record(3), shape(Q_A), shape(Q_G), stale[2]]
    for native in forms_of("eigenbasis_statistics"):
        operator = statistics(EigenbasisStatistics, operators, options, native)
        found = stage(operator, x, dout, parameters(initial))
        assert_close(found[0], A_sum)
        assert_close(found[1], G_sum)
        np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], [samples, G_count, samples])
        for array, basis in zip(found[3:5], initial[3:5]):
            np.testing.assert_array_equal(array, basis.astype(np.float32))
        assert_close(found[5], shape(s_sum))


@settings(max_examples=25)
@given(batch=convolution_batches(), options=ANY_OPTIONS)
def test_any_convolution(batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    geometry, x, g = batch
    factors, dW = conv_factors(x, g, geometry, options.sharing), conv_gradients(x, g, geometry)
    check_forms(operators_of(geometry), options, x, g, factors, dW, int(np.prod(g.shape[2:])))


@settings(max_examples=15)
@given(batch=dense_batches(), options=ANY_OPTIONS)
def test_any_dense_layer(batch: tuple[bool, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    bias, x, g = batch
    factors, dW = dense_factors(x, g, bias, options.sharing), dense_gradients(x, g, bias)
    check_forms(DenseOperators(bias=bias), options, x, g, factors, dW, int(np.prod(x.shape[1:-1])))


# Locations more and fewer than features of either side; the last but one sees its image once.
@needs_native("eigenbasis_statistics")
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "groups"),
    [(16, 16, 20, 3, 1), (24, 70, 8, 3, 1), (2, 90, 6, 3, 1), (40, 30, 3, 3, 1), (8, 10, 12, 3, 2)],
)
def test_large_convolution(
    channels: int, outputs: int, size: int, kernel: int, groups: int, rng: np.random.Generator
) -> None:
    pad = "valid" if size == kernel else "same"
    geometry = Geometry(channels, outputs, (kernel, kernel), pad_mode=pad, groups=groups, image=(size, size))
    x = rng.standard_normal((20, channels, size, size), dtype=np.float32)
    g = rng.standard_normal((20, outputs, *geometry.output_size()), dtype=np.float32)
    factors = conv_factors(x, g, geometry)
    locations = int(np.prod(geometry.output_size()))
    check_forms(operators_of(geometry), MEAN, x, g, factors, conv_gradients(x, g, geometry), locations)


@native_and_fallback("eigenbasis_statistics")
@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_modes_and_types_and_micro_batches(
    mode: int, native: bool, kind: Any, rng: np.random.Generator
) -> None:
    """Two passes of one step, announced by a period of two."""
    geometry = Geometry(3, 2, bias=True)
    x = rng.standard_normal((4, 3, 6, 6)).astype(kind)
    g = rng.standard_normal((4, 2, 6, 6)).astype(kind)
    A, G = conv_factors(x, g, geometry)
    Q_A, Q_G = orthogonal(1, len(A), rng)[0], orthogonal(1, len(G), rng)[0]
    options = dataclasses.replace(MEAN, gradient_scale=2.0)
    scale = (4 * 2.0) ** 2
    s = second_moments(conv_gradients(x, g, geometry)[0], Q_A, Q_G)
    initial = [np.full_like(A, STALE), np.full_like(G, STALE), record(3, 2), Q_A, Q_G, np.full_like(s, STALE)]
    state = parameters(initial)
    operator = statistics(EigenbasisStatistics, operators_of(geometry), options, native)
    for _ in range(2):
        found = stage(operator, x, g, state)
    np.testing.assert_array_equal(found[2][STAGED_WEIGHTS:], [8, 2 * 4 * 36, 8])
    wanted = {0: A * 8, 1: G * 4 * 36 * 2 * scale, 3: Q_A, 4: Q_G, 5: s * 8 * scale}
    for index, expected in wanted.items():
        assert_close(found[index], expected)


@native_and_fallback("eigenbasis_statistics")
@pytest.mark.parametrize("separate", [True, False])
def test_gate(mode: int, separate: bool, native: bool) -> None:
    options = dataclasses.replace(MEAN, mean_reduction=False, separate=separate)
    operator = statistics(EigenbasisStatistics, DenseOperators(bias=False), options, native)
    x, g = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    initial = [np.full(shape, STALE) for shape in ((3, 3), (4, 4), (4, 3))]
    initial = [*initial[:2], record(3), np.eye(3), np.eye(4), initial[2]]
    state = parameters(initial)
    for gate in range(2 * CORRECTED_EIGENVALUES):
        reset(state, initial)
        A, G, described, _, _, s = stage(operator, x, g, state, gate)
        factors = gate % CORRECTED_EIGENVALUES
        inputs = bool(factors & INPUTS if separate else factors)
        gradients = bool(factors & GRADIENTS if separate else factors)
        moments = gate > INPUTS or (gate == INPUTS and not separate)
        weights = [2.0 * inputs, 2.0 * gradients, 2.0 * moments]
        np.testing.assert_array_equal(described[STAGED_WEIGHTS:], weights)
        assert described[0] == (gate > 0)
        for array, changed in zip((A, G, s), (inputs, gradients, moments)):
            np.testing.assert_array_equal(array, np.full(array.shape, 2.0 if changed else STALE))


def test_the_fallback_where_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_native", lambda name: False)
    assert not EigenbasisStatistics(DenseOperators(bias=True), MEAN).native
