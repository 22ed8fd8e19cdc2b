"""The CUDA operator of Sherman-Morrison statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary, AotOperator
from tests.support.cuda_statistics import LAYERS, PERIOD, Batch, Layer, tolerance


class Statistics(Batch):
    """The operator's arrays for one layer."""

    def __init__(self, layer: Layer, rng: np.random.Generator, full: float = 1.0) -> None:
        super().__init__(layer, rng, weights=4)
        self.diagonals = [
            rng.standard_normal((vectors.shape[0], vectors.shape[3])).astype(np.float32)
            for vectors in (self.a, self.g)
        ]
        self.diagonals_before = [diagonal.copy() for diagonal in self.diagonals]
        self.full = np.array(full, np.float32)

    def operator(self, library: AotLibrary, **attributes: object) -> AotOperator:
        inputs = [self.x, self.dout, self.gate, *self.sums, *self.diagonals, self.record, self.full]
        own = {"separate": False, "precision": "float32", **self.layer.attributes(), **attributes}
        return library.operator("ShermanMorrisonStatistics", inputs, [self.output], **own)

    def check(self, side: int, full: bool, precision: str = "float32", calls: int = 1) -> None:
        vectors = (self.a, self.g)[side]
        if full:
            self.check_sum(side, vectors, precision, calls)
        else:
            self.check_untouched(side)
        expected = calls * (vectors**2).sum(axis=(1, 2))
        error = abs(self.diagonals[side] - expected)
        # Diagonals are float32 in every precision: each element is a sum of positive products.
        depth = calls * vectors.shape[1] * vectors.shape[2]
        allowed = tolerance("float32", depth) * expected
        assert (error <= allowed).all(), (error / allowed).max()

    def check_closed(self, side: int) -> None:
        self.check_untouched(side)
        np.testing.assert_array_equal(self.diagonals[side], self.diagonals_before[side])

    def check_passes(self, full: bool, calls: int = 1, gate: int = 3) -> None:
        weights = [self.weight(side) * bool(gate & (1, 2)[side]) for side in (0, 1)]
        self.check_record([*(weight * full for weight in weights), *weights], calls)


@pytest.mark.parametrize("name", LAYERS)
def test_diagonals_alone(operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int) -> None:
    case = Statistics(LAYERS[name], rng, full=0.0)
    operator = case.operator(operators)
    case.record[PERIOD] = 3
    # Several times, to check that a launch resets its counters.
    for _ in range(3):
        operator.run()
    for side in (0, 1):
        case.check(side, full=False, calls=3)
        case.check_untouched(side)
    case.check_passes(full=False, calls=3)


def test_more_squares_than_blocks(operators: AotLibrary, rng: np.random.Generator, schedule: int) -> None:
    case = Statistics(Layer(900, 3, samples=20), rng, full=0.0)
    case.operator(operators).run()
    case.check(0, full=False)


@pytest.mark.parametrize("name", ["dense", "conv_odd", "conv_groups", "conv_reduce"])
def test_diagonals_and_sums(
    operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int
) -> None:
    case = Statistics(LAYERS[name], rng)
    operator = case.operator(operators)
    operator.run()
    operator.run()
    for side in (0, 1):
        case.check(side, full=True, calls=2)
    case.check_passes(full=True, calls=2)


@pytest.mark.parametrize("full", [0.0, 1.0])
def test_sums_by_lags(operators: AotLibrary, full: float, rng: np.random.Generator, schedule: int) -> None:
    case = Statistics(LAYERS["conv_groups"], rng, full)
    operator = case.operator(operators, patches="lags")
    operator.run()
    operator.run()
    for side in (0, 1):
        case.check(side, full=full > 0, calls=2)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_tensor_cores_for_the_sums_alone(
    operators: AotLibrary, precision: str, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS["conv_groups"], rng)
    case.operator(operators, precision=precision).run()
    for side in (0, 1):
        case.check(side, full=True, precision=precision)
        case.check_rounded(side, (case.a, case.g)[side], precision)


def test_two_runs_give_the_same_bits(operators: AotLibrary) -> None:
    cases = [Statistics(LAYERS["dense_many"], np.random.default_rng(3), full=0.0) for _ in range(2)]
    for case in cases:
        case.operator(operators).run()
    np.testing.assert_array_equal(cases[0].diagonals[0], cases[1].diagonals[0])


@pytest.mark.parametrize("name", ["conv3x3", "conv_reduce"])
def test_a_closed_gate_changes_nothing(operators: AotLibrary, name: str, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = 0
    operator = case.operator(operators)
    operator.run()
    for side in (0, 1):
        case.check_closed(side)
    case.check_record_empty()
    case.gate[...] = 1
    operator.run()
    for side in (0, 1):
        case.check(side, full=True)


@pytest.mark.parametrize("gate", [1, 2])
@pytest.mark.parametrize("name", ["conv3x3", "conv_reduce"])
def test_separate_statistics(operators: AotLibrary, name: str, gate: int, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = gate
    case.operator(operators, separate=True).run()
    case.check(gate - 1, full=True)
    case.check_closed(2 - gate)
    case.check_passes(full=True, gate=gate)


def test_mismatched_arguments_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv3x3"], rng)
    case.diagonals[0] = case.diagonals[0][:, :-1].copy()
    with pytest.raises(AotError, match="ShermanMorrisonStatistics: a diagonal has 44 numbers, expected 45"):
        case.operator(operators).run()
    case = Statistics(LAYERS["conv3x3"], rng)
    case.record = case.record[:-1].copy()
    with pytest.raises(AotError, match="ShermanMorrisonStatistics: the record has 8 numbers, expected 9"):
        case.operator(operators).run()
