"""The CUDA operator of Sherman-Morrison refreshes on the emulator, against float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.cuda_cases import ROUNDOFF, Running, run
from tests.support.cuda_sherman_morrison import (
    ARRAYS,
    LAYERS,
    RefreshedLayer,
    ShermanMorrisonCase,
    unchanged,
)


def test_all_kinds_of_refreshes(operators: AotLibrary, rng: np.random.Generator, schedule: int) -> None:
    case = ShermanMorrisonCase(LAYERS, rng)
    case.check(run(operators, case))


def test_refresh_after_refresh(operators: AotLibrary, rng: np.random.Generator) -> None:
    layers = [dataclasses.replace(layer, due=1) for layer in LAYERS[1:]] * 4
    case = ShermanMorrisonCase(layers, rng)
    running = Running(operators, case)
    for _ in range(5):
        case.check(running.run())
        running.advance()


def test_nothing_is_due(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = ShermanMorrisonCase([dataclasses.replace(layer, due=0) for layer in LAYERS[2:]], rng)
    case.check(run(operators, case))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_diagonal_without_roots_leaves_the_layer_and_raises_later(
    operators: AotLibrary, rng: np.random.Generator, value: float
) -> None:
    case = ShermanMorrisonCase([RefreshedLayer(40, 5), RefreshedLayer(6, 7)], rng)
    case.arrays(case.inputs, 0)["A_diagonal"][35] = value
    running = Running(operators, case)
    arrays = running.run()
    before, after = case.arrays(case.inputs, 0), case.arrays(arrays, 0)
    unchanged(before, after, [name for name in ARRAYS if name not in ("A_diagonal", "G_inverse")])
    arrays[0][...] = 0
    with pytest.raises(
        AotError, match="layer0: the root of the diagonal of factor A holds NaN or infinity, at an"
    ):
        running.run()
    running.run()


def test_a_full_refresh_that_fails_comes_again(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = ShermanMorrisonCase(
        [RefreshedLayer(6, 7, full=1.0, refreshes=1.0, counts=(1.0, 1.0, 1.0, 1.0))], rng
    )
    layer = case.arrays(case.inputs, 0)
    # A damping of sqrt(0.05) pi is not enough for A, but ten times as much is.
    layer["A_sum"][...] = np.diag([2.0, 2.0, 2.0, 2.0, 2.0, -1.0])
    layer["G_sum"][...] = np.eye(7)
    running = Running(operators, case)
    arrays = running.run()
    after = case.arrays(arrays, 0)
    unchanged(layer, after, [name for name in ARRAYS if name != "G_inverse"])
    running.run()
    assert (float(after["refreshes"]), float(after["full"])) == (2.0, 0.0)
    pi = np.sqrt(9 / 6)
    expected = 1 / (np.diag(layer["A_sum"]) + 10 * pi * np.sqrt(0.05))
    # A dozen roundings, amplified by less than 2 by the difference from -1.
    np.testing.assert_allclose(np.diag(after["A_inverse"]), expected, rtol=24 * ROUNDOFF)


def test_mismatched_arguments_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = ShermanMorrisonCase(LAYERS[1:3], rng)
    case.inputs[2 + len(ARRAYS) + 2] = case.inputs[2 + len(ARRAYS) + 2][:-1].copy()
    with pytest.raises(AotError, match="ShermanMorrisonRefresh: layer1: array 2 must have 70 numbers"):
        run(operators, case)
