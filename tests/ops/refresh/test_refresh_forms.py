"""The native forms of the other refreshes against their fallback ones, over random shapes."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, ops

from ms_kfac.ops.refresh.block_split_refresh import BlockSplitRefresh
from ms_kfac.ops.refresh.eigenbasis_refresh import EigenbasisRefresh
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh
from ms_kfac.ops.refresh.sherman_morrison_refresh import ShermanMorrisonOptions, ShermanMorrisonRefresh
from ms_kfac.ops.refresh.skfac_refresh import SKFACRefresh
from ms_kfac.ops.refresh.trace_restricted_refresh import TraceRestrictedDamping, TraceRestrictedRefresh
from tests.support.native import needs_native
from tests.support.refresh_cases import (
    OPERATORS,
    eigenbasis_arrays,
    sherman_morrison_arrays,
    skfac_arrays,
    split_arrays,
    trace_restricted_arrays,
)
from tests.support.refreshes import Joint, assert_same, parameter, refreshed

pytestmark = needs_native("eigenbasis_refresh")

dims = st.integers(1, 40)
# The damped factors' condition numbers stay under a few hundred: that many times float32's 6e-8.
CLOSE = 3e-5


@settings(max_examples=15)
@given(dims, dims, st.integers(1, 16), st.sampled_from([0.0, 3.0]), st.booleans())
def test_block_split(dim_A: int, dim_G: int, split: int, count: float, splits: bool) -> None:
    values = split_arrays(dim_A, dim_G, split, count)

    def create(arrays: Any) -> LayerRefresh:
        return BlockSplitRefresh("layer", arrays, split=split, splits=splits)

    assert_same(refreshed(True, values, create, 0.1), refreshed(False, values, create, 0.1), CLOSE)


@settings(max_examples=40)
@given(
    st.tuples(dims, dims, st.integers(1, 3)),
    st.sampled_from([0.0, 3.0]),
    *(st.booleans() for _ in range(4)),
    st.sampled_from([0.01, 5.0]),
)
def test_trace_restricted(
    shape: tuple[int, int, int],
    count: float,
    automatic: bool,
    homogeneous: bool,
    expands: bool,
    roots: bool,
    nu: float,
) -> None:
    values = trace_restricted_arrays(*shape, count, roots)
    options = TraceRestrictedDamping(automatic, nu, automatic and homogeneous, automatic and expands, roots)

    def create(arrays: Any) -> LayerRefresh:
        return TraceRestrictedRefresh("layer", arrays, options)

    found, expected = refreshed(True, values, create, 4.0), refreshed(False, values, create, 4.0)
    # Automatic damping is the trace over the dimension: a condition number of at most the dimension.
    assert_same(found, expected, CLOSE)


@settings(max_examples=15)
@given(dims, dims, st.integers(1, 3), st.sampled_from([0.0, 3.0]))
def test_eigenbasis(dim_A: int, dim_G: int, groups: int, count: float) -> None:
    values = eigenbasis_arrays(dim_A, dim_G, groups, count)

    def create(arrays: Any) -> LayerRefresh:
        return EigenbasisRefresh("layer", arrays)

    found, expected = refreshed(True, values, create, 0.3), refreshed(False, values, create, 0.3)
    # Bases differ in signs and within eigenspaces: both must give the factor back, orthogonally.
    for total, Q, S in ((0, 3, 7), (1, 4, 8)):
        vectors, eigenvalues = found[Q], found[S].reshape(*found[Q].shape[:-2], 1, -1)
        transposed = np.swapaxes(vectors, -1, -2)
        eye = np.broadcast_to(np.eye(vectors.shape[-1]), vectors.shape)
        assert_same([vectors @ transposed], [eye], CLOSE)
        if count > 0:
            assert_same([(vectors * eigenvalues) @ transposed], [values[total] / count], CLOSE)
            assert (np.diff(eigenvalues) >= 0).all()
    others = [index for index in range(len(found)) if index not in (3, 4)]
    assert_same([found[i] for i in others], [expected[i] for i in others], CLOSE)


@settings(max_examples=40)
@given(
    st.tuples(dims, dims, st.integers(1, 3)),
    st.sampled_from([(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, 3.0), (2.0, 3.0, 2.0, 3.0)]),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from([None, 1, 3]),
    st.booleans(),
)
def test_sherman_morrison(
    shape: tuple[int, int, int],
    counts: tuple[float, ...],
    full: float,
    refreshes: int,
    rescale: bool,
    interval: int | None,
    splits: bool,
) -> None:
    values = sherman_morrison_arrays(shape, counts, full, float(refreshes), rescale)
    options = ShermanMorrisonOptions(2, (0.2, 0.3), rescale, interval, splits)

    def create(arrays: Any) -> LayerRefresh:
        return ShermanMorrisonRefresh("layer", arrays, options)

    found = refreshed(True, values, create, 0.1)
    assert_same(found, refreshed(False, values, create, 0.1), CLOSE)
    for inverse in found[7:9]:
        assert_same([inverse], [np.swapaxes(inverse, -1, -2)], 1e-6)


@settings(max_examples=20)
@given(dims, dims, st.integers(1, 3), st.integers(1, 50), st.booleans())
def test_skfac(dim_A: int, dim_G: int, groups: int, rows: int, split: bool) -> None:
    values = skfac_arrays(dim_A, dim_G, groups, rows)

    def create(arrays: Any) -> LayerRefresh:
        return SKFACRefresh("layer", arrays, lambda: (min(rows, dim_A), min(rows, dim_G)), splits=split)

    assert_same(refreshed(True, values, create, 0.1), refreshed(False, values, create, 0.1), CLOSE)


@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
@pytest.mark.parametrize("seen", ["A", "G", "neither"])
@pytest.mark.parametrize("rows", [3, 9])
def test_skfac_leaves_a_layer_without_statistics_of_both(
    native: bool, seen: str, rows: int, mode: int
) -> None:
    values = skfac_arrays(5, 6, 1, rows)
    for index, side in enumerate("AG"):
        if seen != side:
            values[index] = np.zeros_like(values[index])
            values[2][[index, 2 + index]] = 0.0

    def create(arrays: Any) -> LayerRefresh:
        ranks = ops.constexpr(fn=lambda: (min(rows, 5), min(rows, 6)), name="ranks", reuse_result=False)
        return SKFACRefresh("layer", arrays, ranks, splits=True)

    for found, expected in zip(refreshed(native, values, create, 0.1), values):
        np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("due", [0, 1, [0, 1]], ids=str)
def test_only_layers_that_are_due(name: str, due: Any, mode: int) -> None:
    layers, create = OPERATORS[name]
    parameters = [
        [parameter(f"layer{layer}.array{i}", value) for i, value in enumerate(values)]
        for layer, values in enumerate(layers)
    ]
    joint = Joint([create(arrays, index) for index, arrays in enumerate(parameters)])
    joint(Tensor(due, ms.int32), Tensor(0.1, ms.float32))
    for index, wanted in enumerate(np.broadcast_to(due, 2)):
        alone = refreshed(True, layers[index], lambda arrays, i=index: create(arrays, i), 0.1)
        before = [np.asarray(value, np.float32) for value in layers[index]]
        for found, expected in zip(parameters[index], alone if wanted else before):
            np.testing.assert_array_equal(found.asnumpy(), expected)
