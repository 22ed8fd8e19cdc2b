"""Squares of gradients, of samples and of a batch, against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.statistics.diagonal_statistics import DiagonalStatistics, GradientSquare
from ms_kfac.ops.statistics.layer_statistics import (
    CORRECTED_EIGENVALUES,
    EVERYTHING,
    GRADIENTS,
    INPUTS,
    PASSES,
    PERIOD,
    STAGED_WEIGHTS,
    StatisticsOptions,
)
from tests.oracle.eigenbasis import conv_gradients, dense_gradients
from tests.oracle.patches import Geometry
from tests.support.statistics import (
    OPTIONS,
    STALE,
    assert_close,
    convolution_batches,
    dense_batches,
    operators_of,
    parameters,
    record,
    stage,
    stale,
)


def check(
    operators: Any, options: StatisticsOptions, x: np.ndarray, dout: np.ndarray, dW: np.ndarray
) -> None:
    """The sum of the squares of dW (g, N, d_out, d_in), which is of dout itself."""
    groups, samples = dW.shape[:2]
    scale = options.gradient_scale * (samples if options.mean_reduction else 1.0)
    expected = np.square(dW * scale).sum(1)
    expected = expected[0] if groups == 1 else expected
    state = parameters([*stale(expected.shape), record(1)])
    s, described = stage(DiagonalStatistics(operators, options), x, dout, state)
    assert_close(s, expected)
    np.testing.assert_array_equal(described[STAGED_WEIGHTS:], [samples])


@settings(max_examples=15)
@given(batch=convolution_batches(), options=OPTIONS)
def test_any_convolution(batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    geometry, x, g = batch
    check(operators_of(geometry), options, x, g, conv_gradients(x, g, geometry))


@settings(max_examples=10)
@given(batch=dense_batches(), options=OPTIONS)
def test_any_dense_layer(batch: tuple[bool, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    bias, x, g = batch
    check(DenseOperators(bias=bias), options, x, g, dense_gradients(x, g, bias))


@pytest.mark.parametrize(
    ("gate", "takes"),
    [
        (0, 0),
        (INPUTS, 1),
        (GRADIENTS, 1),
        (EVERYTHING, 1),
        (CORRECTED_EIGENVALUES, 0),
        (CORRECTED_EIGENVALUES + INPUTS, 1),
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_square_of_a_batch(shape: tuple[int, ...], gate: int, takes: int, rng: np.random.Generator) -> None:
    samples, gradient = np.array(6.0, np.float32), rng.standard_normal(shape).astype(np.float32)
    size = (shape[0], -1) if shape else (1, 1)
    expected = (6.0 * gradient.astype(np.float64).reshape(size)) ** 2
    state = parameters([*stale(expected.shape), record(1)])
    s, described = stage(GradientSquare(), samples, gradient, state, gate)
    np.testing.assert_array_equal(described[[PASSES, PERIOD]], [takes, 1])
    np.testing.assert_array_equal(described[STAGED_WEIGHTS:], [6.0 * takes])
    if takes:
        assert_close(s, expected)
    assert STALE not in expected
