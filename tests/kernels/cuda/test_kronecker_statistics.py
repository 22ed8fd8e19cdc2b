"""The CUDA operator of Kronecker statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary, AotOperator
from tests.support.cuda_statistics import LAYERS, Batch, Layer


class Statistics(Batch):
    """The operator's arrays for one layer."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        super().__init__(layer, rng, weights=2)

    def operator(self, library: AotLibrary, **attributes: object) -> AotOperator:
        inputs = [self.x, self.dout, self.gate, *self.sums, self.record]
        own = {"separate": False, "precision": "float32", **self.layer.attributes(), **attributes}
        return library.operator("KroneckerStatistics", inputs, [self.output], **own)

    def check(self, side: int, precision: str, calls: int = 1) -> None:
        self.check_sum(side, (self.a, self.g)[side], precision, calls)


@pytest.mark.parametrize("name", LAYERS)
def test_sums_and_record(operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int) -> None:
    case = Statistics(LAYERS[name], rng)
    operator = case.operator(operators)
    # Twice, to check that a launch resets its counters.
    operator.run()
    operator.run()
    for side in (0, 1):
        case.check(side, "float32", calls=2)
    case.check_record([case.weight(0), case.weight(1)], calls=2)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["dense_many", "conv3x3", "conv_groups"])
def test_tensor_cores(operators: AotLibrary, name: str, precision: str, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS[name], rng)
    case.operator(operators, precision=precision).run()
    for side in (0, 1):
        case.check(side, precision)
        case.check_rounded(side, (case.a, case.g)[side], precision)


def test_two_runs_give_the_same_bits(operators: AotLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Statistics(LAYERS["conv3x3"], np.random.default_rng(3)) for _ in range(2)]
    # On the emulator the schedule differs, so that another block is the last one.
    for case, seed in zip(cases, ("1", "2")):
        monkeypatch.setenv("EMULATOR_SEED", seed)
        case.operator(operators, precision="tf32").run()
    np.testing.assert_array_equal(cases[0].sums[0], cases[1].sums[0])


@pytest.mark.parametrize("gate", [0, 4])
@pytest.mark.parametrize("name", ["conv3x3", "conv_reduce"])
def test_a_closed_gate_changes_nothing(
    operators: AotLibrary, name: str, gate: int, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = gate
    operator = case.operator(operators)
    operator.run()
    for side in (0, 1):
        case.check_untouched(side)
    case.check_record_empty()
    case.gate[...] = 3
    operator.run()
    for side in (0, 1):
        case.check(side, "float32")
    case.check_record([case.weight(0), case.weight(1)])


@pytest.mark.parametrize("gate", [1, 2])
@pytest.mark.parametrize("name", ["conv3x3", "conv_reduce"])
def test_separate_statistics(operators: AotLibrary, name: str, gate: int, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = gate
    operator = case.operator(operators, separate=True)
    operator.run()
    opened, closed = gate - 1, 2 - gate
    case.check(opened, "float32")
    case.check_untouched(closed)
    case.check_record([case.weight(side) * (side == opened) for side in (0, 1)])


def test_mismatched_arguments_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv3x3"], rng)
    with pytest.raises(AotError, match="KroneckerStatistics: precision must be float32, tf32 or bfloat16"):
        case.operator(operators, precision="double")
    case.sums[0] = case.sums[0][:, :-1].copy()
    operator = case.operator(operators)
    with pytest.raises(AotError, match="KroneckerStatistics: a sum has 1980 numbers, expected 1 x 45\\^2"):
        operator.run()
    case = Statistics(LAYERS["conv3x3"], rng)
    case.record = case.record[:-1].copy()
    with pytest.raises(AotError, match="KroneckerStatistics: the record has 6 numbers, expected 7"):
        case.operator(operators).run()
