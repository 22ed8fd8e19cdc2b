"""Partial traces of rows and columns of any shape against their definition."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import nn

from ms_kfac.ops.second_moment import ColumnSecondMoment, RowSecondMoment
from ms_kfac.ops.statistics import StatisticsOptions
from ms_kfac.ops.trace_restricted_statistics import TraceRestrictedStatistics
from tests.oracle.tkfac import trace_restricted

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
