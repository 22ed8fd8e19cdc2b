"""The CPU operator of unit-wise statistics, without MindSpore, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from ms_kfac.kernels.library import library
from tests.support.unit_wise_statistics import LAYERS, UnitWise

pytestmark = pytest.mark.skipif(not library("CPU").path, reason=library("CPU").reason)


@pytest.mark.parametrize("name", LAYERS)
def test_passes_replace_and_join(aot: AotLibrary, name: str, rng: np.random.Generator) -> None:
    case = UnitWise(LAYERS[name], rng)
    operator = case.operator(aot)
    operator.run()
    case.check()
    operator.run()
    case.check(calls=2)


@pytest.mark.parametrize("gate", [0, 4])
@pytest.mark.parametrize("name", ["batch", "layer"])
def test_a_gate_without_factors_changes_nothing(
    aot: AotLibrary, name: str, gate: int, rng: np.random.Generator
) -> None:
    case = UnitWise(LAYERS[name], rng)
    case.gate[...] = gate
    case.operator(aot).run()
    case.check_untouched()


def test_what_does_not_fit_is_refused(aot: AotLibrary, rng: np.random.Generator) -> None:
    case = UnitWise(LAYERS["layer"], rng)
    case.sums[1] = case.sums[1][:-1].copy()
    with pytest.raises(AotError, match="UnitWiseStatistics: the sums do not fit their layer"):
        case.operator(aot).run()
    case = UnitWise(LAYERS["layer"], rng)
    case.x = case.x[..., :-1].copy()
    with pytest.raises(AotError, match="the output gradient must have the shape of the input"):
        case.operator(aot).run()
    case.dout = case.x
    with pytest.raises(AotError, match="an input of 696 numbers does not fit 30 channels"):
        case.operator(aot).run()
