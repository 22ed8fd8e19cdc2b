"""The native forms of the other refreshes against their fallback ones, over random shapes."""

from __future__ import annotations

import copy
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from benchmarks.support.aot import AotError, AotLibrary
from ms_kfac.kernels.library import library
from ms_kfac.kernels.registry import REGISTRY
from ms_kfac.kernels.reporter import register_reporter
from ms_kfac.ops.refresh.block_split_refresh import BlockSplitRefresh
from ms_kfac.ops.refresh.eigenbasis_refresh import EigenbasisRefresh
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh, fused_refresh
from ms_kfac.ops.refresh.sherman_morrison_refresh import ShermanMorrisonOptions, ShermanMorrisonRefresh
from ms_kfac.ops.refresh.skfac_refresh import SKFACRefresh
from ms_kfac.ops.refresh.trace_restricted_refresh import TraceRestrictedDamping, TraceRestrictedRefresh
from tests.support.native import needs_native
from tests.support.refreshes import Joint, assert_same, gram_sum, parameter, refreshed

pytestmark = needs_native("eigenbasis_refresh")

dims = st.integers(1, 40)
# The damped factors' condition numbers stay under a few hundred: that many times float32's 6e-8.
CLOSE = 3e-5


def identities(shape: tuple[int, ...]) -> Any:
    return np.full(shape, 7.0)


def split_arrays(dim_A: int, dim_G: int, split: int, count: float) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, split])
    values = [gram_sum(dim, 1, rng) * (count > 0) for dim in (dim_A, dim_G)]
    values += [np.array([count, 2.0 * count])]
    for dim in (dim_A, dim_G):
        pieces = dim // split if dim > split else 0
        rest = dim - pieces * split
        values += [identities((pieces, split, split) if pieces else (1, 1, 1))]
        values += [identities((max(rest, 1),) * 2)]
    return values


@settings(max_examples=15)
@given(dims, dims, st.integers(1, 16), st.sampled_from([0.0, 3.0]), st.booleans())
def test_block_split(dim_A: int, dim_G: int, split: int, count: float, splits: bool) -> None:
    values = split_arrays(dim_A, dim_G, split, count)

    def create(arrays: Any) -> LayerRefresh:
        return BlockSplitRefresh("layer", arrays, split=split, splits=splits)

    assert_same(refreshed(True, values, create, 0.1), refreshed(False, values, create, 0.1), CLOSE)


def trace_restricted_arrays(dim_Phi: int, dim_Psi: int, groups: int, count: float, roots: bool) -> list[Any]:
    rng = np.random.default_rng([dim_Phi, dim_Psi, groups])
    seen = count > 0
    shape = (groups, 1, 1) if groups > 1 else ()
    sums = [gram_sum(dim, groups, rng) * seen for dim in (dim_Phi, dim_Psi)]
    # As large as the sums' own traces, which keeps the damping in proportion.
    traces = rng.uniform(0.5, 2.0, (2, *shape) if roots else shape) * max(dim_Phi, dim_Psi) ** 2 * seen
    return [*sums, traces, np.array([count]), *(identities(total.shape) for total in sums), 1.5]


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


def eigenbasis_arrays(dim_A: int, dim_G: int, groups: int, count: float) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, groups])
    seen = count > 0
    leading = (groups,) if groups > 1 else ()
    A, G = gram_sum(dim_A, groups, rng) * seen, gram_sum(dim_G, groups, rng) * seen
    shapes = [(dim_A, dim_A), (dim_G, dim_G), (dim_G, dim_A), (), (1, dim_A), (dim_G, 1)]
    Q_A, Q_G, s_sum, _, S_A, S_G = (identities((*leading, *shape)) for shape in shapes)
    return [A, G, np.array([count, count, 2.0 * seen]), Q_A, Q_G, s_sum, 0.0, S_A, S_G, 7.0]


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


def sherman_morrison_arrays(
    shape: tuple[int, int, int], counts: tuple[float, ...], full: float, refreshes: float, rescale: bool
) -> list[Any]:
    dim_A, dim_G, groups = shape
    rng = np.random.default_rng([dim_A, dim_G, groups])
    leading = (groups,) if groups > 1 else ()
    values: list[Any] = [gram_sum(dim, groups, rng) * (counts[0] > 0) for dim in (dim_A, dim_G)]
    values += [rng.uniform(0.5, 2.0, (*leading, dim)) * (counts[2] > 0) for dim in (dim_A, dim_G)]
    values += [np.array(counts), full, refreshes]
    values += [np.linalg.inv(gram_sum(dim, groups, rng) + np.eye(dim)) for dim in (dim_A, dim_G)]
    return values + [rng.uniform(5.0, 9.0, (*leading, 1, 1)) for _ in range(3 * rescale)]


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


def skfac_arrays(dim_A: int, dim_G: int, groups: int, rows: int) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, groups])
    leading = (groups,) if groups > 1 else ()
    values: list[Any] = []
    ranks = [min(rows, dim_A), min(rows, dim_G)]
    for dim, rank in zip((dim_A, dim_G), ranks):
        buffer = np.zeros((*leading, dim, dim))
        buffer[..., :rank, :] = rng.standard_normal((*leading, rank, dim))
        # One row fewer than the rank has room for, as after a smaller batch.
        buffer[..., rank - 1, :] *= rank == 1
        values += [gram_sum(dim, groups, rng) if rank == dim else buffer]
    # A loss scale makes fractions of the numbers of rows.
    values += [np.array([1.25 * rows, 0.75 * rows, *ranks])]
    values += [identities((*leading, dim, dim)) for dim in (dim_A, dim_G)]
    return [*values, *(identities((*leading, 1, 1)) for _ in range(2)), 0.0]


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


OPTIONS = TraceRestrictedDamping(automatic=True, nu=0.1, homogeneous=False, expands=True, roots=False)


def kronecker_arrays(dim_A: int, dim_G: int, groups: int) -> list[Any]:
    rng = np.random.default_rng([dim_A, dim_G, groups])
    A, G = gram_sum(dim_A, groups, rng), gram_sum(dim_G, groups, rng)
    return [A, G, np.array([3.0, 6.0]), identities(A.shape), identities(G.shape)]


OPERATORS = {
    "kronecker": (
        [kronecker_arrays(9, 7, 2), kronecker_arrays(5, 6, 1)],
        lambda arrays, i: KroneckerRefresh(f"layer {i}", arrays),
    ),
    "block_split": (
        [split_arrays(9, 7, 4, 3.0), split_arrays(5, 6, 3, 3.0)],
        lambda arrays, i: BlockSplitRefresh(f"layer {i}", arrays, split=(4, 3)[i]),
    ),
    "trace_restricted": (
        [trace_restricted_arrays(9, 7, 2, 3.0, False), trace_restricted_arrays(5, 6, 1, 3.0, False)],
        lambda arrays, i: TraceRestrictedRefresh(f"layer {i}", arrays, OPTIONS),
    ),
    "sherman_morrison": (
        [
            sherman_morrison_arrays((9, 7, 2), (2.0, 3.0, 2.0, 3.0), 1.0, 1.0, True),
            sherman_morrison_arrays((5, 6, 1), (2.0, 3.0, 2.0, 3.0), 0.0, 4.0, True),
        ],
        lambda arrays, i: ShermanMorrisonRefresh(
            f"layer {i}", arrays, ShermanMorrisonOptions(2, (0.2, 0.3), True, 3)
        ),
    ),
    "skfac": (
        [skfac_arrays(9, 7, 2, 4), skfac_arrays(5, 6, 1, 7)],
        lambda arrays, i: SKFACRefresh(f"layer {i}", arrays, None, splits=bool(i)),
    ),
    "eigenbasis": (
        [eigenbasis_arrays(9, 7, 2, 3.0), eigenbasis_arrays(5, 6, 1, 3.0)],
        lambda arrays, i: EigenbasisRefresh(f"layer {i}", arrays),
    ),
}


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


class Call(nn.Cell):
    """The joint refresh of an operator's layers with whatever arrays."""

    def __init__(self, name: str, arrays: list[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        layers, create = OPERATORS[name]
        refreshes = [create(parameters(values), index) for index, values in enumerate(layers)]
        self.kernel = fused_refresh([refresh.spec for refresh in refreshes])
        self.arrays = ParameterTuple(arrays)

    def construct(self, due: Tensor, damping: Tensor) -> bool:
        self.kernel(due, damping, *self.arrays)
        return True


def parameters(values: list[Any]) -> list[Parameter]:
    return [parameter(f"array{index}", value) for index, value in enumerate(values)]


def refused_in_a_graph(name: str, layers: list[list[Any]]) -> str:
    """Calls the joint refresh with layers that it refuses, which leaves all arrays; the error's text."""
    values = [value for layer in layers for value in layer]
    arrays = parameters(values)
    # PyNative mode raises too, but at some later call.
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with pytest.raises(RuntimeError):
            Call(name, arrays)(Tensor(1, ms.int32), Tensor(0.1, ms.float32))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    for index, (found, before) in enumerate(zip(arrays, values)):
        np.testing.assert_array_equal(found.asnumpy(), np.asarray(before, np.float32), err_msg=str(index))
    return library("CPU").last_error()


def joint_refresh(aot: AotLibrary, name: str, arrays: list[Any], **more: Any) -> None:
    """Refreshes both layers in one call, without MindSpore."""
    own, create = OPERATORS[name]
    parts: Any = [create(parameters(values), index).spec for index, values in enumerate(own)]
    attributes = {key: [part.attributes[key] for part in parts] for key in parts[0].attributes}
    inputs = [np.array(1, np.int32), np.array(0.1, np.float32), *arrays]
    aot.operator(
        REGISTRY[f"{name}_refresh"],
        inputs,
        [np.zeros(1, np.float32)],
        layers="layer 0\nlayer 1",
        **attributes,
        **more,
    ).run()


def refused(aot: AotLibrary, name: str, layers: list[list[Any]]) -> str:
    """The same without MindSpore, which would compile a graph for each call."""
    arrays = [np.array(value, np.float32) for layer in layers for value in layer]
    before = copy.deepcopy(arrays)
    with pytest.raises(AotError) as error:
        joint_refresh(aot, name, arrays)
    for index, (found, expected) in enumerate(zip(arrays, before)):
        np.testing.assert_array_equal(found, expected, err_msg=str(index))
    return str(error.value)


@pytest.mark.parametrize("name", OPERATORS)
def test_nan_leaves_all_layers_as_they_were(aot: AotLibrary, name: str) -> None:
    layers = copy.deepcopy(OPERATORS[name][0])
    # The layer whose refresh is full, or of full rank: it reads the last row.
    broken = 0 if name == "sherman_morrison" else 1
    layers[broken][1][..., -1, -1] = np.inf
    assert f"layer {broken}" in refused(aot, name, layers)
    layers[broken][1][..., -1, -1] = np.nan
    assert f"layer {broken}" in refused_in_a_graph(name, layers)


def test_nan_in_a_low_rank_factor_leaves_all_layers_as_they_were(aot: AotLibrary) -> None:
    layers = copy.deepcopy(OPERATORS["skfac"][0])
    layers[0][0][1, 0, 3] = np.nan
    assert "layer 0: factor A holds NaN" in refused(aot, "skfac", layers)


def test_nan_in_a_diagonal_leaves_all_layers_as_they_were(aot: AotLibrary) -> None:
    layers = copy.deepcopy(OPERATORS["sherman_morrison"][0])
    layers[1][3][2] = np.nan
    assert "layer 1: the diagonal of factor G" in refused(aot, "sherman_morrison", layers)


@pytest.mark.parametrize("name", OPERATORS)
def test_with_a_reporter_only_the_layer_with_nan_keeps_its_arrays(aot: AotLibrary, name: str) -> None:
    """An error would end a compiled step for good. The other layer is refreshed as without the broken one."""
    told: list[str] = []
    handle = register_reporter(lambda step, found, text: told.append(f"{step} {len(found)} {text}"))
    broken = 0 if name == "sherman_morrison" else 1
    layers = copy.deepcopy(OPERATORS[name][0])
    layers[broken][1][..., -1, -1] = np.nan
    found = [np.array(value, np.float32) for layer in layers for value in layer]
    before = copy.deepcopy(found)
    joint_refresh(aot, name, found, reporter=handle.number)
    assert len(told) == 1
    assert told[0].startswith(f"-1 0 layer {broken}: ")
    expected = [np.array(value, np.float32) for layer in OPERATORS[name][0] for value in layer]
    joint_refresh(aot, name, expected)
    count = len(layers[0])
    for index, array in enumerate(found):
        wanted = before if index // count == broken else expected
        np.testing.assert_array_equal(array, wanted[index], err_msg=str(index))


@pytest.mark.parametrize("name", OPERATORS)
def test_arrays_of_other_sizes_are_refused(aot: AotLibrary, name: str) -> None:
    """Each array of the second layer in turn, larger along its last axis or without any."""
    for index, value in enumerate(OPERATORS[name][0][1]):
        layers = copy.deepcopy(OPERATORS[name][0])
        shape = np.shape(value)
        # Both axes of a matrix, which stays square.
        larger = (*shape[:-2], *(extent + 2 for extent in shape[-2:])) if shape else (2,)
        for wrong in [larger, ()] if index == 0 else [larger]:
            layers[1][index] = np.ones(wrong)
            error = refused(aot, name, layers)
            assert "layer 1: array" in error and "must have" in error


@pytest.mark.parametrize("name", OPERATORS)
def test_another_number_of_arrays_is_refused(name: str) -> None:
    layers = [[*values, 1.0] for values in OPERATORS[name][0]]
    assert "arrays for each of 2 layers" in refused_in_a_graph(name, layers)


@pytest.mark.parametrize("rank", [0.0, 6.0, np.nan])
def test_a_rank_beyond_the_rows_is_refused(aot: AotLibrary, rank: float) -> None:
    layers = copy.deepcopy(OPERATORS["skfac"][0])
    layers[1][2][2] = rank
    assert "layer 1: factor A has 5 rows and a rank of" in refused(aot, "skfac", layers)
