"""The CUDA operator of unit-wise statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.unit_wise_statistics import LAYERS, Normalization, UnitWise


@pytest.mark.parametrize("multiprocessors", ["1", "100"])
@pytest.mark.parametrize("name", LAYERS)
def test_passes_replace_and_join(
    operators: AotLibrary,
    name: str,
    multiprocessors: str,
    rng: np.random.Generator,
    schedule: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a small GPU blocks take several tasks. On a large one sums are split into parts."""
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", multiprocessors)
    case = UnitWise(LAYERS[name], rng)
    operator = case.operator(operators)
    operator.run()
    case.check()
    # Again, to check that a launch resets its counters.
    operator.run()
    case.check(calls=2)


def test_many_blocks(
    operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks wait for one another in several rounds: parts of channels' moments, gradients, squares."""
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", "300")
    case = UnitWise(Normalization("batch", (80, 64, 17, 17), (64,)), rng)
    case.operator(operators).run()
    case.check()
    if operators.device == "cpu":
        assert operators.library.emulator_largest_launch() > 1000


@pytest.mark.parametrize("name", ["batch_many", "batch_channels_last", "layer_many"])
def test_two_runs_give_the_same_bits(
    operators: AotLibrary, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [UnitWise(LAYERS[name], np.random.default_rng(3)) for _ in range(2)]
    # On the emulator the schedule differs, so that another block is the last one.
    for case, seed in zip(cases, ("1", "2")):
        monkeypatch.setenv("EMULATOR_SEED", seed)
        case.operator(operators).run()
    for one, other in zip((*cases[0].sums, cases[0].record), (*cases[1].sums, cases[1].record)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("gate", [0, 4])
@pytest.mark.parametrize("name", ["batch", "layer"])
def test_a_gate_without_factors_changes_nothing(
    operators: AotLibrary, name: str, gate: int, rng: np.random.Generator
) -> None:
    case = UnitWise(LAYERS[name], rng)
    case.gate[...] = gate
    operator = case.operator(operators)
    operator.run()
    case.check_untouched()
    case.gate[...] = 1
    operator.run()
    case.check()


def test_what_does_not_fit_is_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = UnitWise(LAYERS["layer"], rng)
    case.sums[1] = case.sums[1][:-1].copy()
    with pytest.raises(AotError, match="UnitWiseStatistics: the sums do not fit their layer"):
        case.operator(operators).run()
    case = UnitWise(LAYERS["layer"], rng)
    case.record = case.record[:-1].copy()
    with pytest.raises(AotError, match="UnitWiseStatistics: the record has 5 numbers, expected 6"):
        case.operator(operators).run()
    case = UnitWise(LAYERS["layer"], rng)
    case.x = case.x[..., :-1].copy()
    with pytest.raises(AotError, match="the output gradient must have the shape of the input"):
        case.operator(operators)
