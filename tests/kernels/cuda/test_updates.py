"""The CUDA operators that fade statistics and step weights, on the emulator."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.aot import AotError, AotLibrary
from tests.support.cuda_cases import run
from tests.support.cuda_updates import DecayCase, MomentumCase


@pytest.mark.parametrize("due", [0, 1])
def test_decay(operators: AotLibrary, due: int, rng: np.random.Generator, order: str) -> None:
    case = DecayCase(rng, due=due)
    case.check(run(operators, case))


@pytest.mark.parametrize("due", [0, 1])
def test_decay_of_what_waits_for_flags(
    operators: AotLibrary, due: int, rng: np.random.Generator, order: str
) -> None:
    case = DecayCase(rng, due=due, copies=9, flags=(0.0, 1.0))
    case.check(run(operators, case))


@pytest.mark.parametrize("flags", [(), (1.0, 0.0)])
def test_decay_of_more_arrays_than_a_launch_describes(
    operators: AotLibrary, flags: tuple[float, ...], rng: np.random.Generator
) -> None:
    case = DecayCase(rng, copies=50, flags=flags)
    case.check(run(operators, case))


def test_decay_refuses_what_does_not_fit(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = DecayCase(rng)
    case.attributes["owners"] = [3, *case.owners[1:]]
    with pytest.raises(AotError, match="Decay: an owner without a factor"):
        run(operators, case)
    case.attributes["owners"] = case.owners[1:]
    with pytest.raises(AotError, match="Decay: not a flag and a number of leading elements for each owner"):
        run(operators, case)
    case = DecayCase(rng, flags=(0.0,))
    case.attributes["leading"] = [size + 1 for size in case.leading]
    with pytest.raises(AotError, match="Decay: more leading elements than an array has"):
        run(operators, case)
    del case.inputs[-1]
    with pytest.raises(AotError, match="Decay: not one array for each owner, and the flags"):
        run(operators, case)
    case.inputs.append(np.zeros(2, np.float32))
    case.attributes["leading"] = case.leading
    with pytest.raises(AotError, match="Decay: a flag must be one number"):
        run(operators, case)
    case.inputs[0] = np.ones(2, np.int32)
    with pytest.raises(AotError, match="Decay: due must be one number"):
        run(operators, case)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(
    operators: AotLibrary, nesterov: bool, decoupled: bool, own: bool, rng: np.random.Generator
) -> None:
    case = MomentumCase(rng, nesterov=nesterov, decoupled=decoupled, own=own)
    case.check(run(operators, case))


def test_momentum_of_many_parameters_without_decay(
    operators: AotLibrary, rng: np.random.Generator, order: str
) -> None:
    case = MomentumCase(rng, decays=False, copies=20)
    case.check(run(operators, case))


def test_momentum_refuses_what_does_not_fit(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = MomentumCase(rng)
    case.inputs[-1] = case.inputs[-1][:, 1:].copy()
    with pytest.raises(AotError, match="MomentumStep: an update does not fit its weight"):
        run(operators, case)
    del case.inputs[-1]
    with pytest.raises(AotError, match="MomentumStep: not the inputs that the attributes tell of"):
        run(operators, case)
