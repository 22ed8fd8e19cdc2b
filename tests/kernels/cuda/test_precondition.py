"""The CUDA operators that precondition gradients, on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.aot import AotError, AotLibrary
from tests.support.cuda_cases import Running, run
from tests.support.cuda_precondition import LAYERS, SMALL, KroneckerCase


def test_kronecker(emulated: AotLibrary, rng: np.random.Generator, order: str) -> None:
    case = KroneckerCase(LAYERS, rng)
    running = Running(emulated, case)
    case.check(running.run())
    # Counters must be as a launch leaves them, and results not those of the first call.
    for gradient in case.gradients:
        gradient *= -1.7
    running.load()
    case.check(running.run())


def test_kronecker_of_more_layers_than_a_launch_describes(
    emulated: AotLibrary, rng: np.random.Generator
) -> None:
    case = KroneckerCase(SMALL * 8, rng)
    case.check(run(emulated, case))


def test_two_runs_give_the_same_bits(emulated: AotLibrary) -> None:
    one, other = (run(emulated, KroneckerCase(LAYERS, np.random.default_rng(3))) for _ in range(2))
    for first, second in zip(one, other):
        np.testing.assert_array_equal(first, second)


def test_kronecker_refuses_what_does_not_fit(emulated: AotLibrary, rng: np.random.Generator) -> None:
    case = KroneckerCase(SMALL, rng)
    case.inputs[-1] = case.inputs[-1][..., :-1].copy()
    with pytest.raises(AotError, match="KroneckerPrecondition: inverses must be square"):
        run(emulated, case)
    case = KroneckerCase(SMALL, rng)
    case.inputs[-1] = case.inputs[-1][:-1].copy()
    with pytest.raises(AotError, match="KroneckerPrecondition: a gradient does not fit its layer"):
        run(emulated, case)
    case = KroneckerCase(SMALL, rng)
    case.inputs.append(case.inputs[-1])
    with pytest.raises(AotError, match="KroneckerPrecondition: more inputs than the attributes tell of"):
        run(emulated, case)
