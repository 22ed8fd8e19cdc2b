"""Refreshes that are refused: what keeps its values, and what is told."""

from __future__ import annotations

import copy
from typing import Any, Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn

from benchmarks.support.aot import AotError, AotLibrary
from ms_kfac.kernels.library import library
from ms_kfac.kernels.registry import REGISTRY
from ms_kfac.kernels.reporter import register_reporter
from ms_kfac.ops.refresh.layer_refresh import fused_refresh
from tests.support.native import needs_native
from tests.support.refresh_cases import OPERATORS
from tests.support.refreshes import parameter

pytestmark = needs_native("eigenbasis_refresh")


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


def put_nan(factor: Any) -> None:
    factor[..., -1, -1] = np.nan


def make_indefinite(factor: Any) -> None:
    """Finite, but no damping up to the trace helps, which is known only when the other factor is inverted."""
    factor[..., -1, -2] = factor[..., -2, -1] = 1e6


@pytest.mark.parametrize("harm", [put_nan, make_indefinite])
@pytest.mark.parametrize("name", OPERATORS)
def test_with_a_reporter_only_the_broken_layer_keeps_its_arrays(
    aot: AotLibrary, name: str, harm: Callable[[Any], None]
) -> None:
    """An error would end a compiled step for good. The other layer is refreshed as without the broken one."""
    if name == "eigenbasis" and harm is make_indefinite:
        pytest.skip("it has a basis")
    told: list[str] = []
    handle = register_reporter(lambda step, found, text: told.append(f"{step} {len(found)} {text}"))
    broken = 0 if name == "sherman_morrison" else 1
    layers = copy.deepcopy(OPERATORS[name][0])
    harm(layers[broken][1])
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
