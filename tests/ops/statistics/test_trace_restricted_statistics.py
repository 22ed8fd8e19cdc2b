"""Partial traces of rows and columns of any shape against their definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.statistics.layer_statistics import STAGED_WEIGHTS, StatisticsOptions
from ms_kfac.ops.statistics.second_moment import ColumnSecondMoment, RowSecondMoment
from ms_kfac.ops.statistics.trace_restricted_statistics import TraceRestrictedStatistics
from tests.oracle.patches import Geometry
from tests.oracle.tkfac import Rows, convolution_rows, dense_rows, reduced, trace_restricted
from tests.support.forms import forms_of, native_and_fallback
from tests.support.native import needs_native
from tests.support.statistics import OPTIONS as ANY_OPTIONS
from tests.support.statistics import (
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

OPTIONS = StatisticsOptions(sharing="expand", mean_reduction=False, gradient_scale=1.0)


class _Sides(nn.Cell):
    """Projections of rows that are ready made: not looked at here."""

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return x.sum(), dout.sum()


@dataclass(frozen=True)
class ReadyMade:
    """Operators of a layer whose input and output gradient are rows, or columns, as they come."""

    columns: bool
    groups: int = 1
    locates_inputs: bool = False
    feature_axes: int = 1

    @property
    def channels_first(self) -> bool:
        return self.columns

    @property
    def channels_last(self) -> bool:
        return not self.columns

    def activations(self, reduce: bool) -> nn.Cell:
        return nn.Identity()

    gradients = activations

    def second_moment(self) -> nn.Cell:
        return ColumnSecondMoment() if self.columns else RowSecondMoment()

    def projections(self) -> nn.Cell:
        return _Sides()

    def native_geometry(self) -> None:
        return None


def staged(a: np.ndarray, g: np.ndarray, columns: bool, gate: int = 1) -> list[np.ndarray]:
    """What the operator stages of rows or columns that are ready made, and its record."""
    groups = a.shape[1:-2] if columns else ()
    axis = -2 if columns else -1
    shapes = ((*groups, a.shape[axis], a.shape[axis]), (*groups, g.shape[axis], g.shape[axis]))
    traces = (*groups, 1, 1) if groups else ()
    operator = statistics(TraceRestrictedStatistics, ReadyMade(columns), OPTIONS, False)
    return stage(operator, a, g, parameters([*stale(*shapes, traces), record(1)]), gate)


@settings(max_examples=12)
@given(
    samples=st.integers(1, 6),
    locations=st.integers(1, 9),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 8),
    outputs=st.integers(1, 5),
    columns=st.booleans(),
)
def test_any_shape(
    samples: int, locations: int, groups: int, inputs: int, outputs: int, columns: bool
) -> None:
    rng = np.random.default_rng(samples + 10 * locations + 100 * inputs + 1000 * outputs)
    a = rng.standard_normal((groups, samples, locations, inputs), dtype=np.float32)
    g = rng.standard_normal((groups, samples, locations, outputs), dtype=np.float32)
    if columns:
        # (N, [groups,] d, T)
        laid = [np.ascontiguousarray(x.transpose(1, 0, 3, 2)) for x in (a, g)]
        laid = [x[:, 0] for x in laid] if groups == 1 else laid
    else:
        groups = 1
        laid = [x[0].reshape(-1, x.shape[-1]) for x in (a, g)]
    Phi, Psi, delta, described = staged(*laid, columns)
    assert described[STAGED_WEIGHTS] == (samples if columns else samples * locations)
    for group in range(groups):
        expected = trace_restricted((a[group].astype(np.float64), g[group].astype(np.float64)))
        total = expected.delta * samples
        found = [x[group] if groups > 1 else x for x in (Phi, Psi, delta)]
        # At most 54 positive products on the diagonals, each of rounded norms of 8 terms and a root.
        tolerance = 3e-6 * total
        np.testing.assert_allclose(found[0], expected.Phi * total, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found[1], expected.Psi * total, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found[2].reshape(()), total, rtol=3e-6)


def test_closed_gate_does_not_change_the_statistics() -> None:
    x = np.ones((3, 2), np.float32)
    *arrays, described = staged(x, x, columns=False, gate=0)
    assert all((array == STALE).all() for array in arrays)
    np.testing.assert_array_equal(described, record(1))


def expected_sums(groups: list[Rows], options: StatisticsOptions) -> list[np.ndarray]:
    """What a batch stages; `groups` are rows of every group, with dout instead of g."""
    samples = len(groups[0][0])
    scale = options.gradient_scale * (samples if options.mean_reduction else 1.0)
    Phis, Psis, deltas = [], [], []
    for a, dout in groups:
        rows = (a, dout * scale)
        block = trace_restricted(reduced(rows) if options.sharing == "reduce" else rows)
        Phis.append(samples * block.delta * block.Phi)
        Psis.append(samples * block.delta * block.Psi)
        deltas.append(samples * block.delta)
    if len(groups) == 1:
        return [Phis[0], Psis[0], np.asarray(deltas[0])]
    return [np.stack(Phis), np.stack(Psis), np.reshape(deltas, (len(groups), 1, 1))]


def check_forms(
    operators: Any, options: StatisticsOptions, x: np.ndarray, dout: np.ndarray, groups: list[Rows]
) -> None:
    """Both forms against the definition."""
    wanted = expected_sums(groups, options)
    for native in forms_of("trace_restricted_statistics"):
        operator = statistics(TraceRestrictedStatistics, operators, options, native)
        state = parameters([*stale(*(array.shape for array in wanted)), record(1)])
        found = stage(operator, x, dout, state)
        for array, expected in zip(found, wanted):
            assert_close(array, expected)
        np.testing.assert_array_equal(found[3][STAGED_WEIGHTS:], [len(x)])


@settings(max_examples=15)
@given(batch=convolution_batches(), options=ANY_OPTIONS)
def test_any_convolution(batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    geometry, x, g = batch
    check_forms(operators_of(geometry), options, x, g, convolution_rows(x, g, geometry))


@settings(max_examples=10)
@given(batch=dense_batches(widest=20), options=ANY_OPTIONS)
def test_any_dense_layer(batch: tuple[bool, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    bias, x, g = batch
    check_forms(DenseOperators(bias=bias), options, x, g, [dense_rows(x, g, bias)])


@native_and_fallback("trace_restricted_statistics")
def test_in_both_modes_with_a_gate(mode: int, native: bool, rng: np.random.Generator) -> None:
    """Both matrices need inputs and gradients: whatever the gate asks for opens all of them."""
    geometry = Geometry(4, 6, groups=2, bias=True)
    x = rng.standard_normal((3, 4, 6, 6), dtype=np.float32)
    g = rng.standard_normal((3, 6, 6, 6), dtype=np.float32)
    operator = statistics(TraceRestrictedStatistics, operators_of(geometry), OPTIONS, native)
    wanted = expected_sums(convolution_rows(x, g, geometry), OPTIONS)
    initial = [*stale(*(array.shape for array in wanted)), record(1)]
    state = parameters(initial)
    for gate in (0, 1, 4, 2, 3):
        reset(state, initial)
        found = stage(operator, x, g, state, gate)
        for array, expected in zip(found, wanted):
            assert_close(array, expected if gate else np.full_like(expected, STALE))
        assert found[3][STAGED_WEIGHTS] == (3 if gate else 0)


# Widths at which the sums are shared out among threads, and left to BLAS.
@needs_native("trace_restricted_statistics")
@pytest.mark.parametrize("channels, size", [(20, 12), (30, 9), (3, 40)])
def test_large_convolution(channels: int, size: int, rng: np.random.Generator) -> None:
    geometry = Geometry(channels, 9, image=(size, size))
    x = rng.standard_normal((16, channels, size, size), dtype=np.float32)
    g = rng.standard_normal((16, 9, size, size), dtype=np.float32)
    shapes = [(channels * 9, channels * 9), (9, 9), ()]
    found = [
        stage(
            statistics(TraceRestrictedStatistics, operators_of(geometry), OPTIONS, native),
            x,
            g,
            parameters([*stale(*shapes), record(1)]),
        )
        for native in (True, False)
    ]
    for native_array, fallback_array in zip(*found):
        assert_close(native_array, fallback_array)
