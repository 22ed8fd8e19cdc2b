"""The CUDA operator that updates weights, on the emulator."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.cuda_cases import run
from tests.support.cuda_updates import MomentumCase


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(
    operators: AotLibrary, nesterov: bool, decoupled: bool, own: bool, rng: np.random.Generator
) -> None:
    case = MomentumCase(rng, nesterov=nesterov, decoupled=decoupled, own=own)
    case.check(run(operators, case))


def test_momentum_of_many_parameters_without_decay(
    operators: AotLibrary, rng: np.random.Generator, schedule: int
) -> None:
    case = MomentumCase(rng, decays=False, copies=20)
    case.check(run(operators, case))


def test_momentum_refuses_mismatched_shapes(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = MomentumCase(rng)
    case.inputs[-1] = case.inputs[-1][:, 1:].copy()
    with pytest.raises(AotError, match="MomentumStep: an update does not fit its weight"):
        run(operators, case)
    del case.inputs[-1]
    with pytest.raises(AotError, match="MomentumStep: the number of inputs does not match the attributes"):
        run(operators, case)
