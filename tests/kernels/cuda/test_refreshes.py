"""The CUDA operators that refresh inverses, against float64."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.cuda_refreshes import (
    Layer,
    Refresh,
    block_split,
    eigenbasis,
    kronecker,
    skfac,
    trace_restricted,
)

DAMPING = 0.03
# interface/reports.h. Not from the package, because it needs MindSpore, which a machine with a GPU may lack.
REPORTER = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64), ctypes.c_char_p
)


def kronecker_layers(rng: np.random.Generator) -> list[Layer]:
    """Sizes around tile boundaries, groups, a layer without statistics, a layer whose A is zero."""
    return [
        kronecker(1, 3, rng),
        kronecker(63, 64, rng, groups=2),
        kronecker(65, 130, rng),
        kronecker(9, 70, rng, groups=3, count=0.0),
        kronecker(12, 5, rng, zero_trace=True),
        kronecker(12, 7, rng, groups=2, splits=False),
    ]


def block_split_layers(rng: np.random.Generator) -> list[Layer]:
    """Blocks of one and of several tiles, with and without a remainder, one block, no statistics."""
    return [
        block_split(150, 20, 66, rng),
        block_split(40, 41, 20, rng),
        block_split(30, 64, 64, rng),
        block_split(9, 5, 4, rng, count=0.0),
        block_split(9, 5, 4, rng, splits=False),
    ]


def trace_restricted_layers(rng: np.random.Generator) -> list[Layer]:
    """Both kinds of damping with all their options, traces below and above nu, groups, no statistics."""
    automatic = {"automatic": 1, "nu": 0.2}
    return [
        trace_restricted(70, 9, rng),
        trace_restricted(9, 20, rng, groups=2, **automatic),
        trace_restricted(9, 20, rng, **automatic, homogeneous=1, expands=1),
        trace_restricted(9, 8, rng, groups=3, **automatic, expands=1, delta=0.01, beta=0.5),
        trace_restricted(10, 7, rng, groups=2, roots=1),
        trace_restricted(10, 7, rng, **automatic, roots=1),
        trace_restricted(10, 7, rng, groups=2, **automatic, roots=1, expands=1),
        trace_restricted(10, 7, rng, **automatic, roots=1, expands=1, homogeneous=1),
        trace_restricted(5, 6, rng, groups=2, count=0.0),
    ]


def skfac_layers(rng: np.random.Generator) -> list[Layer]:
    """Ranks of one and of several panels, full rank, row counts other than the rank, groups, no split."""
    return [
        skfac(20, 30, 12, rng),
        skfac(150, 70, 68, rng),
        skfac(9, 30, 10, rng, groups=2, splits=False),
        skfac(30, 6, 7, rng, present=4.0),
        skfac(30, 20, 7, rng, present=13.7),
        skfac(5, 6, 3, rng, seen=(False, True)),
        skfac(5, 6, 3, rng, groups=2, seen=(True, False)),
    ]


def eigenbasis_layers(rng: np.random.Generator) -> list[Layer]:
    """One pair of panels and several, groups, eigenvalues over six powers of ten, no statistics."""
    return [
        eigenbasis(1, 3, rng),
        eigenbasis(66, 12, rng, groups=2),
        eigenbasis(9, 40, rng, decay=0.17),
        eigenbasis(9, 5, rng, groups=3, count=0.0),
    ]


LAYERS = {
    "KroneckerRefresh": kronecker_layers,
    "BlockSplitRefresh": block_split_layers,
    "TraceRestrictedRefresh": trace_restricted_layers,
    "SKFACRefresh": skfac_layers,
    "EigenbasisRefresh": eigenbasis_layers,
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer(operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int) -> None:
    layers = LAYERS[name](rng)
    refresh = Refresh(operators, name, layers, DAMPING)
    # Twice: the second call finds workspaces that hold values of the first one.
    for _ in range(2):
        refresh.run()
        for index in range(len(layers)):
            refresh.check(index)


def test_an_eigenbasis_of_several_panels(operators: AotLibrary, rng: np.random.Generator) -> None:
    refresh = Refresh(operators, "EigenbasisRefresh", [eigenbasis(130, 70, rng, decay=0.02)], DAMPING)
    refresh.run()
    refresh.check(0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("due", [0, "each"])
def test_only_layers_that_are_due(
    operators: AotLibrary, name: str, due: Any, rng: np.random.Generator
) -> None:
    layers = LAYERS[name](rng)
    each = [0] * len(layers) if due == 0 else [index % 2 for index in range(len(layers))]
    refresh = Refresh(operators, name, layers, DAMPING, each if due == "each" else 0)
    refresh.run()
    for index, wanted in enumerate(each):
        refresh.check(index) if wanted else refresh.check_untouched(index)


def test_many_layers_take_several_launches(operators: AotLibrary, rng: np.random.Generator) -> None:
    layers = [kronecker(3 + index % 5, 2 + index % 7, rng) for index in range(90)]
    refresh = Refresh(operators, "KroneckerRefresh", layers, DAMPING)
    refresh.run()
    for index in range(len(layers)):
        refresh.check(index)


# Index of the second factor's sum, or its rows, among a layer's arrays.
SECOND_FACTOR = 1


def refuses_and_leaves(refresh: Refresh, message: str) -> None:
    """Checks that a failing call changes nothing and that only the next call, due or not, raises."""
    refresh.run()
    for index in range(len(refresh.layers)):
        refresh.check_untouched(index)
    refresh.due[...] = 0
    with pytest.raises(AotError, match=message):
        refresh.run()
    refresh.run()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_leaves_all_layers_as_they_were(
    operators: AotLibrary, name: str, value: float, rng: np.random.Generator
) -> None:
    layers = LAYERS[name](rng)[:2]
    layers[1].arrays[SECOND_FACTOR][..., -1, -1] = value
    if name == "SKFACRefresh":
        layers[1].arrays[SECOND_FACTOR][..., 3, 5] = value
    refuses_and_leaves(
        Refresh(operators, name, layers, DAMPING), f"{name}: layer 1: .*factor .* holds NaN or infinity"
    )


def test_with_a_reporter_nan_is_no_error(operators: AotLibrary, rng: np.random.Generator) -> None:
    """An error would end the compiled step for good."""
    layers = LAYERS["KroneckerRefresh"](rng)[:2]
    layers[1].arrays[SECOND_FACTOR][..., -1, -1] = np.nan
    told: list[str] = []

    def keep(handle: int, step: int, count: int, findings: Any, failure: bytes) -> None:
        told.append(f"{handle} {step} {count} {failure.decode()}")

    function = REPORTER(keep)
    operators.library.ms_kfac_set_reporter(function)
    try:
        refresh = Refresh(operators, "KroneckerRefresh", layers, DAMPING, reporter=7)
        refresh.run()
        refresh.run()
    finally:
        operators.library.ms_kfac_set_reporter(None)
    for index in range(len(layers)):
        refresh.check_untouched(index)
    assert told == ["7 -1 0 layer 1: factor G holds NaN or infinity, at an earlier refresh"]


@pytest.mark.parametrize("name", LAYERS)
def test_nan_in_a_layer_that_is_not_due(operators: AotLibrary, name: str, rng: np.random.Generator) -> None:
    layers = LAYERS[name](rng)[:2]
    layers[0].arrays[SECOND_FACTOR][...] = np.nan
    refresh = Refresh(operators, name, layers, DAMPING, [0, 1])
    for _ in range(2):
        refresh.run()
        refresh.check(1)
        refresh.check_untouched(0)


def test_nan_in_the_damping(operators: AotLibrary, rng: np.random.Generator) -> None:
    refresh = Refresh(operators, "KroneckerRefresh", kronecker_layers(rng)[:2], np.nan)
    refuses_and_leaves(refresh, "layer 0: factor A has a scale or a damping of NaN or infinity")


@pytest.mark.parametrize("name", LAYERS)
def test_arrays_of_other_sizes_are_refused(
    operators: AotLibrary, name: str, rng: np.random.Generator
) -> None:
    """Enlarges each array of the second layer in turn, along its last axis or both axes of a matrix."""
    for index in range(len(LAYERS[name](rng)[1].arrays)):
        layers = LAYERS[name](rng)[:2]
        shape = layers[1].arrays[index].shape
        larger = (*shape[:-2], *(extent + 2 for extent in shape[-2:])) if shape else (2,)
        layers[1].arrays[index] = np.ones(larger, np.float32)
        with pytest.raises(AotError, match=r"layer 1: array .* must have"):
            Refresh(operators, name, layers, DAMPING).run()


def test_other_arrays_than_it_was_created_for_are_refused(
    operators: AotLibrary, rng: np.random.Generator
) -> None:
    refresh = Refresh(operators, "KroneckerRefresh", [kronecker(4, 3, rng)], DAMPING)
    larger = kronecker(5, 3, rng).arrays
    refresh.operator.arrays[2:7] = larger
    with pytest.raises(AotError, match="a factor has 5 rows, expected 4"):
        refresh.run()


def test_due_of_another_size_is_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    refresh = Refresh(operators, "KroneckerRefresh", kronecker_layers(rng), DAMPING, [1, 1])
    with pytest.raises(AotError, match="due must have one number, or one for each of 6 layers"):
        refresh.run()


@pytest.mark.parametrize("rank", [0.0, 71.0, np.nan])
def test_a_rank_beyond_the_rows_is_refused(
    operators: AotLibrary, rank: float, rng: np.random.Generator
) -> None:
    layers = skfac_layers(rng)[:2]
    layers[1].arrays[2][3] = rank
    refresh = Refresh(operators, "SKFACRefresh", layers, DAMPING)
    with pytest.raises(AotError, match="layer 1: factor G has 70 rows and a rank of"):
        refresh.run()
    for index in (0, 1):
        refresh.check_untouched(index)
