"""The CUDA operator of SKFAC's statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary, AotOperator
from tests.support.cuda_statistics import (
    LAYERS,
    PASSES,
    STAGED_WEIGHTS,
    Batch,
    Layer,
    second_moment,
    tolerance,
)

# One rank for each form: a few rows, all but one, and the sum.
FEW, MOST, ALL = "few", "most", "all"


class Statistics(Batch):
    """The operator's arrays for one layer."""

    def __init__(
        self,
        layer: Layer,
        rng: np.random.Generator,
        forms: tuple[str, str] = (ALL, ALL),
        averages: bool = False,
        period: int = 2,
    ) -> None:
        super().__init__(layer, rng, weights=4, period=period)
        self.averages = averages
        self.rows = [self.rows_of(side) for side in (0, 1)]
        sizes = [rows.shape[-1] for rows in self.rows]
        ranks = [{FEW: min(2, d - 1), MOST: d - 1, ALL: d}[form] for form, d in zip(forms, sizes)]
        self.ranks = np.array(ranks, np.float32)

    def rows_of(self, side: int) -> np.ndarray:
        """The rows of a side, (groups, R, d)."""
        vectors = self.layer.all_vectors(self.x, self.dout)[side]
        locations = vectors.shape[2]
        if self.layer.kernel is not None:
            rows = vectors.sum(axis=2) / (locations if self.averages else 1)
        elif self.layer.reduce:
            rows = vectors.sum(axis=2) / (1 if side else locations)
        else:
            rows = vectors.reshape(len(vectors), -1, vectors.shape[-1]) * (1 if side else locations**0.5)
        return np.asarray(rows)

    def operator(self, library: AotLibrary, **attributes: object) -> AotOperator:
        inputs = [self.x, self.dout, self.gate, *self.sums, self.record, self.ranks]
        own = {
            "separate": False,
            "precision": "float32",
            "averages": self.averages,
            **self.layer.attributes(),
            **attributes,
        }
        return library.operator("SKFACStatistics", inputs, [self.output], **own)

    def check(self, side: int, precision: str = "float32", calls: int = 1) -> None:
        rows, rank, size = self.rows[side], int(self.ranks[side]), self.rows[side].shape[-1]
        # A row is a sum over locations, scaled twice.
        roundings = rows.shape[1] + self.layer.all_vectors(self.x, self.dout)[side].shape[2] + 8
        if rank == size:
            expected, bound = second_moment(rows[:, :, None])
            error = abs(self.sums[side] - calls * expected)
            # An entry of a row that cancels has the rounding of its terms.
            allowed = 2 * tolerance(precision, calls * roundings) * calls * max(bound.max(), 1.0)
            assert (error <= allowed).all(), (error / allowed).max()
            return
        newest = rows[:, : min(rows.shape[1], rank)]
        pushed = np.concatenate([newest] * calls, axis=1)[:, :size]
        kept = np.concatenate([pushed, np.zeros((len(rows), size - pushed.shape[1], size))], axis=1)
        allowed = roundings * 2.0**-24 * max(abs(rows).max(), 1.0) * 4
        np.testing.assert_allclose(self.sums[side], kept, rtol=0, atol=allowed)
        np.testing.assert_array_equal(self.sums[side][:, pushed.shape[1] :], 0)

    def check_passes(self, calls: int = 1, gate: int = 3) -> None:
        taken = []
        for side in (0, 1):
            rows, rank, size = self.rows[side], self.ranks[side], self.rows[side].shape[-1]
            brought = calls * rows.shape[1]
            taken.append((min(brought, rank) if rank < size else brought) * bool(gate & (1, 2)[side]))
        ranks = self.ranks * [bool(gate & 1), bool(gate & 2)]
        assert self.record[PASSES] == calls
        np.testing.assert_array_equal(self.record[STAGED_WEIGHTS:], [*taken, *ranks])


FORMS = [(FEW, MOST), (MOST, ALL), (ALL, FEW), (ALL, ALL)]


@pytest.mark.parametrize("forms", FORMS, ids="-".join)
@pytest.mark.parametrize("name", LAYERS)
def test_rows_and_sums(
    operators: AotLibrary, name: str, forms: tuple[str, str], rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS[name], rng, forms)
    operator = case.operator(operators)
    for calls in (1, 2):
        operator.run()
        for side in (0, 1):
            case.check(side, calls=calls)
        case.check_passes(calls)


@pytest.mark.parametrize("forms", FORMS, ids="-".join)
@pytest.mark.parametrize("name", ["dense_reduce", "conv_groups"])
def test_schedules(
    operators: AotLibrary, name: str, forms: tuple[str, str], rng: np.random.Generator, schedule: int
) -> None:
    case = Statistics(LAYERS[name], rng, forms, averages=True)
    operator = case.operator(operators)
    operator.run()
    operator.run()
    for side in (0, 1):
        case.check(side, calls=2)


def test_rows_of_many_passes_drop_out(operators: AotLibrary, rng: np.random.Generator) -> None:
    """Ten features, five rows a pass: the third pass leaves nothing of the first."""
    case = Statistics(Layer(10, 3, samples=4), rng, (MOST, FEW), period=3)
    operator = case.operator(operators)
    for calls in (1, 2, 3):
        case.x[...] = rng.standard_normal(case.x.shape)
        before = case.sums[0].copy()
        operator.run()
        rows = case.rows_of(0)[0]
        np.testing.assert_allclose(case.sums[0][0, :4], rows, rtol=1e-6)
        if calls > 1:
            np.testing.assert_array_equal(case.sums[0][0, 4:], before[0, :6])
    np.testing.assert_array_equal(case.record[STAGED_WEIGHTS:], [9, 2, 9, 2])
    # The fourth begins a new batch.
    operator.run()
    np.testing.assert_array_equal(case.sums[0][0, 4:], 0)
    np.testing.assert_array_equal(case.record[STAGED_WEIGHTS:], [4, 2, 9, 2])


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_tensor_cores_for_the_sums_alone(
    operators: AotLibrary, precision: str, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS["dense"], rng, (ALL, FEW))
    case.operator(operators, precision=precision).run()
    case.check(0, precision)
    case.check_rounded(0, case.rows[0][:, :, None], precision)
    case.check(1)


@pytest.mark.parametrize("forms", [(FEW, FEW), (ALL, ALL)], ids="-".join)
def test_a_closed_gate_changes_nothing(
    operators: AotLibrary, forms: tuple[str, str], rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS["conv3x3"], rng, forms)
    case.gate[...] = 0
    operator = case.operator(operators)
    operator.run()
    for side in (0, 1):
        case.check_untouched(side)
    case.check_record_empty()
    case.gate[...] = 1
    operator.run()
    for side in (0, 1):
        case.check(side)


@pytest.mark.parametrize("gate", [1, 2])
@pytest.mark.parametrize("forms", [(FEW, FEW), (ALL, ALL)], ids="-".join)
def test_separate_statistics(
    operators: AotLibrary, forms: tuple[str, str], gate: int, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS["conv3x3"], rng, forms)
    case.gate[...] = gate
    case.operator(operators, separate=True).run()
    case.check(gate - 1)
    case.check_untouched(2 - gate)
    case.check_passes(gate=gate)


def test_mismatched_arguments_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv3x3"], rng)
    case.ranks = case.ranks[:1].copy()
    with pytest.raises(AotError, match="SKFACStatistics: there must be two ranks"):
        case.operator(operators).run()
    case = Statistics(LAYERS["conv3x3"], rng)
    case.record = case.record[:-1].copy()
    with pytest.raises(AotError, match="SKFACStatistics: the record has 8 numbers, expected 9"):
        case.operator(operators).run()
