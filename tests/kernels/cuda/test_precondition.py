"""The CUDA operators that precondition gradients, on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.cuda_cases import Running, run
from tests.support.cuda_precondition import (
    LAYERS,
    SMALL,
    WHOLE,
    EigenbasisCase,
    KroneckerCase,
    PreconditionCase,
    PreconditionedLayer,
    SKFACCase,
)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [(KroneckerCase, LAYERS), (EigenbasisCase, WHOLE + WHOLE[:1]), (SKFACCase, WHOLE * 2)],
)
def test_updates_and_products(
    operators: AotLibrary,
    kind: type[PreconditionCase],
    layers: tuple[PreconditionedLayer, ...],
    rng: np.random.Generator,
    schedule: int,
) -> None:
    case = kind(layers, rng)
    running = Running(operators, case)
    case.check(running.run())
    # A second call checks that counters were reset and that results are not those of the first call.
    for gradient in case.gradients:
        gradient *= -1.7
    running.load()
    case.check(running.run())


@pytest.mark.parametrize(("kind", "layers"), [(KroneckerCase, LAYERS), (EigenbasisCase, WHOLE)])
def test_tensor_cores(
    operators: AotLibrary,
    kind: type[PreconditionCase],
    layers: tuple[PreconditionedLayer, ...],
    rng: np.random.Generator,
) -> None:
    case = kind(layers, rng, "tf32")
    found = run(operators, case)
    case.check(found)
    case.precision = "float32"
    with pytest.raises(AssertionError, match="layer 0"):
        case.check(found)


@pytest.mark.parametrize(("kind", "layers"), [(KroneckerCase, SMALL), (EigenbasisCase, WHOLE)])
def test_bfloat16_is_refused(
    operators: AotLibrary,
    kind: type[PreconditionCase],
    layers: tuple[PreconditionedLayer, ...],
    rng: np.random.Generator,
) -> None:
    with pytest.raises(AotError, match="Precondition: precision must be float32 or tf32, got bfloat16"):
        run(operators, kind(layers, rng, "bfloat16"))


@pytest.mark.parametrize(
    ("kind", "layers"), [(KroneckerCase, SMALL), (EigenbasisCase, WHOLE[3:]), (SKFACCase, WHOLE[3:])]
)
def test_more_layers_than_a_launch_describes(
    operators: AotLibrary,
    kind: type[PreconditionCase],
    layers: tuple[PreconditionedLayer, ...],
    rng: np.random.Generator,
) -> None:
    case = kind(layers * 16, rng)
    case.check(run(operators, case))


def test_skfac_stays_in_float32(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = SKFACCase(WHOLE, rng, "tf32")
    case.precision = "float32"
    case.check(run(operators, case))


def test_two_runs_give_the_same_bits(operators: AotLibrary) -> None:
    one, other = (run(operators, KroneckerCase(LAYERS, np.random.default_rng(3))) for _ in range(2))
    for first, second in zip(one, other):
        np.testing.assert_array_equal(first, second)


def test_kronecker_refuses_mismatched_shapes(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = KroneckerCase(SMALL, rng)
    case.inputs[-1] = case.inputs[-1][..., :-1].copy()
    with pytest.raises(AotError, match="KroneckerPrecondition: inverses must be square"):
        run(operators, case)
    case = KroneckerCase(SMALL, rng)
    case.inputs[-1] = case.inputs[-1][:-1].copy()
    with pytest.raises(AotError, match="KroneckerPrecondition: a gradient does not fit its layer"):
        run(operators, case)
    case = KroneckerCase(SMALL, rng)
    case.inputs.append(case.inputs[-1])
    with pytest.raises(AotError, match="KroneckerPrecondition: more inputs than the attributes declare"):
        run(operators, case)


def test_eigenbasis_refuses_mismatched_shapes(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = EigenbasisCase(WHOLE[3:], rng)
    case.inputs[-3] = case.inputs[-3][1:].copy()
    with pytest.raises(AotError, match="EigenbasisPrecondition: an array does not fit its basis"):
        run(operators, case)
    case.inputs[-7] = case.inputs[-7][1:].copy()
    with pytest.raises(AotError, match="EigenbasisPrecondition: not one basis for each group"):
        run(operators, case)


def test_skfac_refuses_mismatched_shapes(operators: AotLibrary, rng: np.random.Generator) -> None:
    for index, message in (
        (-1, "not two ranks"),
        (-2, "not one damping for each group"),
        (-4, "not one solver for each group"),
    ):
        case = SKFACCase(WHOLE[3:], rng)
        case.inputs[index] = case.inputs[index][1:].copy()
        with pytest.raises(AotError, match=f"SKFACPrecondition: {message}"):
            run(operators, case)
