"""Partial traces of rows and columns of any shape against their definition."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import nn

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.second_moment import ColumnSecondMoment, RowSecondMoment
from ms_kfac.ops.statistics import StatisticsOptions
from ms_kfac.ops.trace_restricted_statistics import (
    TraceRestrictedRootStatistics,
    TraceRestrictedStatistics,
)
from tests.oracle.patches import Geometry
from tests.oracle.tkfac import Rows, convolution_rows, dense_rows, reduced, trace_restricted
from tests.support.native import needs_native
from tests.support.statistics import (
    OPTIONS as ANY_OPTIONS,
)
from tests.support.statistics import (
    add,
    assert_close,
    convolutions,
    operators_of,
    state_of,
    statistics,
)

OPTIONS = StatisticsOptions(sharing="expand", mean_reduction=False, gradient_scale=1.0)


def accumulate(a: np.ndarray, g: np.ndarray, columns: bool, gate: int = 1) -> tuple[np.ndarray, ...]:
    """The sums that the operator adds to zeros, by calling it on rows or columns that are ready made."""
    groups = a.shape[1:-2] if columns else ()
    axis = -2 if columns else -1
    operator = TraceRestrictedStatistics(
        nn.Identity(),
        nn.Identity(),
        ColumnSecondMoment() if columns else RowSecondMoment(),
        channels_first=columns,
        options=OPTIONS,
    )
    shapes = ((*groups, a.shape[axis], a.shape[axis]), (*groups, g.shape[axis], g.shape[axis]))
    traces = (*groups, 1, 1) if groups else ()
    state = [
        ms.Parameter(ms.Tensor(np.zeros(shape, np.float32)), name=f"s{i}", requires_grad=False)
        for i, shape in enumerate((*shapes, traces, ()))
    ]
    opened = ms.Parameter(ms.Tensor(gate, ms.int32), name="gate", requires_grad=False)
    operator(ms.Tensor(a), ms.Tensor(g), opened, *state)
    return tuple(parameter.asnumpy() for parameter in state)


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
    Phi, Psi, delta, count = accumulate(*laid, columns)
    assert count == (samples if columns else samples * locations)
    for group in range(groups):
        expected = trace_restricted((a[group].astype(np.float64), g[group].astype(np.float64)))
        total = expected.delta * samples
        found = [x[group] if groups > 1 else x for x in (Phi, Psi, delta)]
        # At most 54 positive products on the diagonals, each of rounded norms of 8 terms and a root.
        tolerance = 3e-6 * total
        np.testing.assert_allclose(found[0], expected.Phi * total, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found[1], expected.Psi * total, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found[2].reshape(()), total, rtol=3e-6)


def test_closed_gate_leaves_the_statistics_alone() -> None:
    x = np.ones((3, 2), np.float32)
    assert all(not array.any() for array in accumulate(x, x, columns=False, gate=0))


needs_kernels = needs_native("trace_restricted_statistics")
# Some of the batches' traces are above that floor and some below.
ROOTS = {"floor": 1e4, "homogeneous": True}


def expected_state(
    groups: list[Rows], options: StatisticsOptions, roots: dict[str, Any] | None
) -> list[np.ndarray]:
    """What a batch adds to zeros; `groups` are rows of every group, with dout in the place of g."""
    samples = len(groups[0][0])
    scale = options.gradient_scale * (samples if options.mean_reduction else 1.0)
    Phis, Psis, deltas, shifts = [], [], [], []
    for a, dout in groups:
        rows = (a, dout * scale)
        block = trace_restricted(reduced(rows) if options.sharing == "reduce" else rows)
        trace = block.delta if roots is None else np.sqrt(max(block.delta, roots["floor"]))
        Phis.append(samples * trace * block.Phi)
        Psis.append(samples * trace * block.Psi)
        deltas.append(samples * block.delta)
        shifts.append(samples * (trace if roots is None or roots["homogeneous"] else trace**2))
    single = len(groups) == 1
    matrices = [np.stack(found)[0] if single else np.stack(found) for found in (Phis, Psis)]
    traces = np.array(deltas if roots is None else [deltas, shifts])
    shape = (() if roots is None else (2,)) + (() if single else (len(groups), 1, 1))
    return [*matrices, traces.reshape(shape), np.asarray(samples)]


def check_forms(
    operators: Any,
    options: StatisticsOptions,
    x: np.ndarray,
    dout: np.ndarray,
    groups: list[Rows],
    roots: dict[str, Any] | None = None,
) -> None:
    """Both forms against the definition."""
    kind = TraceRestrictedStatistics if roots is None else TraceRestrictedRootStatistics
    wanted = expected_state(groups, options, roots)
    for native in (True, False):
        operator = statistics(kind, operators, options, native, **(roots or {}))
        found = add(operator, x, dout, state_of([array.shape for array in wanted]))
        for array, expected in zip(found, wanted):
            assert_close(array, expected)


@needs_kernels
@settings(max_examples=15)
@given(
    geometry=convolutions(),
    options=ANY_OPTIONS,
    samples=st.integers(1, 5),
    roots=st.sampled_from([None, ROOTS, {"floor": 0.0, "homogeneous": False}]),
)
def test_any_convolution(
    geometry: Geometry, options: StatisticsOptions, samples: int, roots: dict[str, Any] | None
) -> None:
    rng = np.random.default_rng(geometry.in_channels + samples)
    x = (rng.standard_normal((samples, geometry.in_channels, *geometry.image)) + 0.5).astype(np.float32)
    g = rng.standard_normal((samples, geometry.out_channels, *geometry.output_size())).astype(np.float32)
    check_forms(operators_of(geometry), options, x, g, convolution_rows(x, g, geometry), roots)


@needs_kernels
@settings(max_examples=10)
@given(
    options=ANY_OPTIONS,
    leading=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    widths=st.tuples(st.integers(1, 20), st.integers(1, 9)),
    bias=st.booleans(),
)
def test_any_dense_layer(
    options: StatisticsOptions, leading: list[int], widths: tuple[int, int], bias: bool
) -> None:
    rng = np.random.default_rng(sum(leading) + widths[0])
    x = (rng.standard_normal((*leading, widths[0])) + 0.5).astype(np.float32)
    g = rng.standard_normal((*leading, widths[1])).astype(np.float32)
    check_forms(DenseOperators(bias=bias), options, x, g, [dense_rows(x, g, bias)])


@needs_kernels
@pytest.mark.parametrize("roots", [None, ROOTS])
def test_native_in_both_modes_with_a_gate(
    mode: int, roots: dict[str, Any] | None, rng: np.random.Generator
) -> None:
    geometry = Geometry(4, 6, groups=2, bias=True)
    x = rng.standard_normal((3, 4, 6, 6), dtype=np.float32)
    g = rng.standard_normal((3, 6, 6, 6), dtype=np.float32)
    kind = TraceRestrictedStatistics if roots is None else TraceRestrictedRootStatistics
    operator = statistics(kind, operators_of(geometry), OPTIONS, native=True, **(roots or {}))
    wanted = expected_state(convolution_rows(x, g, geometry), OPTIONS, roots)
    state = state_of([array.shape for array in wanted], value=1.0)
    for gate, batches in [(0, 0), (1, 1), (4, 2), (0, 2)]:
        for array, expected in zip(add(operator, x, g, state, gate), wanted):
            assert_close(array, 1.0 + batches * expected)


# Widths at which the sums are shared out among threads, and left to BLAS.
@needs_kernels
@pytest.mark.parametrize("channels, size", [(20, 12), (30, 9), (3, 40)])
def test_large_convolution(channels: int, size: int, rng: np.random.Generator) -> None:
    geometry = Geometry(channels, 9, image=(size, size))
    x = rng.standard_normal((16, channels, size, size), dtype=np.float32)
    g = rng.standard_normal((16, 9, size, size), dtype=np.float32)
    shapes = [(channels * 9, channels * 9), (9, 9), (), ()]
    found = [
        add(
            statistics(TraceRestrictedStatistics, operators_of(geometry), OPTIONS, native),
            x,
            g,
            state_of(shapes),
        )
        for native in (True, False)
    ]
    for native_array, composed_array in zip(*found):
        assert_close(native_array, composed_array)
