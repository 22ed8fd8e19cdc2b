"""What passes before a commit leave staged: the last one, or sums over a period, of every kind of layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Callable

import mindspore as ms
import numpy as np
import pytest

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.capture.embedding import EmbeddingOperators
from ms_kfac.capture.normalization import LayerNormOperators
from ms_kfac.ops.statistics.eigenbasis_statistics import EigenbasisStatistics
from ms_kfac.ops.statistics.embedding_statistics import EmbeddingStatistics
from ms_kfac.ops.statistics.factor_ranks import FactorRanks
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import (
    EVERYTHING,
    INPUTS,
    PASSES,
    PERIOD,
    PRODUCT,
    PRODUCTS,
    SCALE,
    STAGED_WEIGHTS,
    StatisticsOptions,
)
from ms_kfac.ops.statistics.sherman_morrison_statistics import ShermanMorrisonStatistics
from ms_kfac.ops.statistics.skfac_statistics import SKFACOptions, SKFACStatistics
from ms_kfac.ops.statistics.trace_restricted_statistics import TraceRestrictedStatistics
from ms_kfac.ops.statistics.unit_wise_statistics import UnitWiseStatistics
from tests.oracle.capture_check import product_of
from tests.oracle.eigenbasis import dense_gradients
from tests.oracle.patches import Geometry
from tests.support.forms import native_and_fallback
from tests.support.native import needs_native
from tests.support.statistics import assert_close, operators_of, parameters, record, reset, stage, statistics

MEAN = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=2.0)
SEPARATE = replace(MEAN, separate=True)
RECORD = "record"
# Inputs of 4 features and outputs of 3; two groups of 2 channels in and 3 out, on images of 4 x 3.
GROUPED = Geometry(4, 6, (2, 2), groups=2, bias=True, image=(4, 3))
Batch = tuple[np.ndarray, np.ndarray]


def dense(rng: np.random.Generator) -> Batch:
    return rng.standard_normal((3, 4), np.float32), rng.standard_normal((3, 3), np.float32)


def grouped(rng: np.random.Generator) -> Batch:
    return rng.standard_normal((3, 4, 4, 3), np.float32), rng.standard_normal((3, 6, 4, 3), np.float32)


def tokens(rng: np.random.Generator) -> Batch:
    return rng.integers(0, 5, (3, 2)).astype(np.int32), rng.standard_normal((3, 2, 3), np.float32)


def rows_of_four(rng: np.random.Generator) -> Batch:
    return rng.standard_normal((3, 4), np.float32), rng.standard_normal((3, 4), np.float32)


@dataclass(frozen=True)
class Kind:
    """An operator and its state: staged arrays with their weight, the record, arrays that are only read."""

    kind: Any
    operators: Any
    batch: Callable[[np.random.Generator], Batch]
    state: tuple[Any, ...]
    weights: int
    kernel: str = ""

    def operator(self, native: bool, options: StatisticsOptions = MEAN) -> Any:
        return statistics(self.kind, self.operators, options, native)

    def start(self, period: int) -> list[np.ndarray]:
        """The state before the first pass: NaN is staged."""
        values: list[np.ndarray] = []
        for entry in self.state:
            if entry is RECORD:
                values.append(record(self.weights, period))
            elif isinstance(entry, np.ndarray):
                values.append(entry)
            else:
                values.append(np.full(entry[0], np.nan))
        return values

    @property
    def staged(self) -> list[tuple[int, int]]:
        """Index and weight of each staged array."""
        return [(i, entry[1]) for i, entry in enumerate(self.state) if isinstance(entry, tuple)]

    def record_in(self, found: Sequence[np.ndarray]) -> np.ndarray:
        return next(array for array, entry in zip(found, self.state) if entry is RECORD)


def basis(*shape: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).standard_normal(shape))[0]


KINDS = {
    "kronecker": Kind(
        KroneckerStatistics,
        DenseOperators(bias=True),
        dense,
        (((5, 5), 0), ((3, 3), 1), RECORD),
        2,
        "kronecker_statistics",
    ),
    "kronecker, grouped": Kind(
        KroneckerStatistics,
        operators_of(GROUPED),
        grouped,
        (((2, 9, 9), 0), ((2, 3, 3), 1), RECORD),
        2,
        "kronecker_statistics",
    ),
    "trace restricted, grouped": Kind(
        TraceRestrictedStatistics,
        operators_of(GROUPED),
        grouped,
        (((2, 9, 9), 0), ((2, 3, 3), 0), ((2, 1, 1), 0), RECORD),
        1,
        "trace_restricted_statistics",
    ),
    "trace restricted": Kind(
        TraceRestrictedStatistics,
        DenseOperators(bias=False),
        dense,
        (((4, 4), 0), ((3, 3), 0), ((), 0), RECORD),
        1,
        "trace_restricted_statistics",
    ),
    "sherman-morrison": Kind(
        ShermanMorrisonStatistics,
        operators_of(GROUPED),
        grouped,
        (((2, 9, 9), 0), ((2, 3, 3), 1), ((2, 9), 2), ((2, 3), 3), RECORD, np.array(1.0)),
        4,
        "sherman_morrison_statistics",
    ),
    "eigenbasis": Kind(
        EigenbasisStatistics,
        operators_of(GROUPED),
        grouped,
        (((2, 9, 9), 0), ((2, 3, 3), 1), RECORD, basis(2, 9, 9), basis(2, 3, 3), ((2, 3, 9), 2)),
        3,
        "eigenbasis_statistics",
    ),
    "embedding": Kind(
        EmbeddingStatistics,
        EmbeddingOperators(bias=False, vocabulary=5),
        tokens,
        (((5,), 0), ((3, 3), 1), RECORD),
        2,
        "embedding_statistics",
    ),
    "unit-wise": Kind(
        UnitWiseStatistics,
        LayerNormOperators(bias=True, epsilon=0.1, shape=(4,)),
        rows_of_four,
        (((2, 4), 0), ((4,), 0), RECORD),
        1,
        "unit_wise_statistics",
    ),
}
FORMS = [
    pytest.param(name, native, marks=needs_native(kind.kernel) if native else ())
    for name, kind in KINDS.items()
    for native in ((True, False) if kind.kernel else (False,))
]
every_form = pytest.mark.parametrize(("name", "native"), FORMS)


@cache
def compiled(
    mode: int, name: str, native: bool, options: StatisticsOptions
) -> tuple[Any, list[Any], list[Any]]:
    """An operator and two states, for which it is compiled once in each mode."""
    kind = KINDS[name]
    return kind.operator(native, options), parameters(kind.start(1)), parameters(kind.start(1))


class Passes:
    """Passes of one layer, and what each of them stages alone."""

    def __init__(self, name: str, native: bool, period: int, options: StatisticsOptions = MEAN) -> None:
        self.kind = KINDS[name]
        self.operator, self.state, self.fresh = compiled(ms.get_context("mode"), name, native, options)
        self.rng = np.random.default_rng(5)
        reset(self.state, self.kind.start(period))
        self.alone: list[list[np.ndarray]] = []
        self.found: list[np.ndarray] = []

    def take(self, *, broken: bool = False, gate: int = EVERYTHING) -> None:
        """One more pass."""
        x, dout = self.kind.batch(self.rng)
        if broken:
            dout = np.full_like(dout, np.nan)
        reset(self.fresh, self.kind.start(1))
        self.alone.append(stage(self.operator, x, dout, self.fresh, gate))
        self.found = stage(self.operator, x, dout, self.state, gate)

    @property
    def record(self) -> np.ndarray:
        """The record now."""
        return self.kind.record_in(self.found)

    def check(self, *joined: int) -> None:
        """What is staged is the sum of these passes; the products are those of all."""
        records = [self.kind.record_in(self.alone[index]) for index in joined]
        for index, weight in self.kind.staged:
            parts = [self.alone[i][index] for i in joined]
            assert_close(self.found[index], np.sum(parts, axis=0, dtype=np.float64))
            assert self.record[STAGED_WEIGHTS + weight] > 0
        np.testing.assert_array_equal(
            self.record[STAGED_WEIGHTS:], np.sum([r[STAGED_WEIGHTS:] for r in records], axis=0)
        )
        for entry in (PRODUCT, SCALE):
            np.testing.assert_allclose(self.record[entry], sum(r[entry] for r in records), rtol=1e-5)
        everything = sum(self.kind.record_in(alone)[PRODUCT] for alone in self.alone)
        np.testing.assert_allclose(self.record[PRODUCTS], everything, rtol=1e-5)
        assert self.record[PASSES] == len(self.alone)
        for found, entry in zip(self.found, self.kind.state):
            if isinstance(entry, np.ndarray):
                np.testing.assert_array_equal(found, entry.astype(np.float32))


@every_form
def test_with_a_period_of_one_the_last_pass_counts(mode: int, name: str, native: bool) -> None:
    passes = Passes(name, native, period=1)
    for index in range(3):
        passes.take()
        passes.check(index)
    assert passes.record[PERIOD] == 1


@every_form
def test_with_a_period_of_two_passes_join_and_are_replaced(mode: int, name: str, native: bool) -> None:
    passes = Passes(name, native, period=2)
    for joined in ((0,), (0, 1), (2,), (2, 3)):
        passes.take()
        passes.check(*joined)
    assert passes.record[PERIOD] == 2


@every_form
def test_nan_does_not_survive_being_replaced(mode: int, name: str, native: bool) -> None:
    """An overflowed pass spoils the batch that it joins, and nothing after it."""
    passes = Passes(name, native, period=2)
    passes.take(broken=True)
    passes.take()
    assert not np.isfinite(passes.record[[PRODUCT, SCALE]]).any()
    passes.take()
    for index, _ in passes.kind.staged:
        np.testing.assert_array_equal(passes.found[index], passes.alone[2][index])
    alone = passes.kind.record_in(passes.alone[2])
    np.testing.assert_array_equal(passes.record[STAGED_WEIGHTS:], alone[STAGED_WEIGHTS:])
    np.testing.assert_array_equal(passes.record[[PRODUCT, SCALE]], alone[[PRODUCT, SCALE]])
    assert passes.record[PASSES] == 3


@every_form
def test_a_closed_gate_leaves_everything(mode: int, name: str, native: bool) -> None:
    passes = Passes(name, native, period=2)
    passes.take()
    before = passes.found
    passes.take(gate=0)
    for found, kept in zip(passes.found, before):
        np.testing.assert_array_equal(found, kept)


SEPARATE_FORMS = [
    param
    for param in FORMS
    if param.values[0] in ("kronecker", "sherman-morrison", "eigenbasis", "embedding")
]


@pytest.mark.parametrize(("name", "native"), SEPARATE_FORMS)
def test_array_missing_from_earlier_passes_is_replaced(mode: int, name: str, native: bool) -> None:
    """Statistics of inputs alone, then all: the inputs' join, the others hold an older batch, NaN here."""
    passes = Passes(name, native, period=2, options=SEPARATE)
    passes.take(gate=INPUTS)
    passes.take()
    weights = passes.record[STAGED_WEIGHTS:]
    for index, weight in passes.kind.staged:
        first, second = (alone[index] for alone in passes.alone)
        joins = passes.kind.record_in(passes.alone[0])[STAGED_WEIGHTS + weight] > 0
        assert joins == (weight in (0, 2) if name == "sherman-morrison" else weight == 0)
        assert_close(passes.found[index], first + second if joins else second)
        alone = passes.kind.record_in(passes.alone[1])[STAGED_WEIGHTS + weight]
        assert weights[weight] == alone * (2 if joins else 1)


@native_and_fallback("skfac_statistics")
@pytest.mark.parametrize("period", [1, 2])
def test_rows_of_several_passes(mode: int, period: int, native: bool, rng: np.random.Generator) -> None:
    """SKFAC keeps rows, newest first, where they are fewer than a side is wide, else their products."""
    options = replace(MEAN, mean_reduction=False, gradient_scale=1.0)
    ranks = FactorRanks("layer", (9, 4), period, lambda: (0, 0))
    operator = SKFACStatistics(
        DenseOperators(bias=True), 1, options, SKFACOptions("sum", 1), ranks, native=native
    )
    state = parameters([np.full((9, 9), np.nan), np.full((4, 4), np.nan), record(4, period)])
    batches = [
        (rng.standard_normal((3, 8), np.float32), rng.standard_normal((3, 4), np.float32)) for _ in range(4)
    ]
    for number, (x, dout) in enumerate(batches):
        found = stage(operator, x, dout, state)
        joined = batches[number - number % period : number + 1][::-1]
        rows = np.concatenate([np.concatenate([a, np.ones((3, 1))], axis=1) for a, _ in joined])
        A = np.zeros((9, 9))
        A[: len(rows)] = rows
        np.testing.assert_array_equal(found[0], A.astype(np.float32))
        G = np.concatenate([g for _, g in joined]).astype(np.float64)
        if period == 1:
            np.testing.assert_array_equal(found[1], np.concatenate([G, np.zeros((1, 4))]).astype(np.float32))
        else:
            assert_close(found[1], G.T @ G)
        count = 3 * len(joined)
        assert found[2][STAGED_WEIGHTS:].tolist() == [count, count, 3 * period, min(3 * period, 4)]
        assert found[2][PASSES] == number + 1
        p = sum(product_of(dense_gradients(a, g, True).sum(1), 8, True) for a, g in joined)
        np.testing.assert_allclose(found[2][PRODUCT], p, rtol=0, atol=1e-5 * found[2][SCALE])
