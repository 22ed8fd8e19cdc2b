"""The CPU operator of embedding statistics, without MindSpore, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from ms_kfac.kernels.library import library
from tests.support.cuda_statistics import STAGED_WEIGHTS
from tests.support.embedding_statistics import TABLES, Embedding

pytestmark = pytest.mark.skipif(not library("CPU").path, reason=library("CPU").reason)


@pytest.mark.parametrize("name", TABLES)
def test_passes_replace_and_join(aot: AotLibrary, name: str, rng: np.random.Generator) -> None:
    case = Embedding(TABLES[name], rng)
    operator = case.operator(aot)
    operator.run()
    case.check()
    operator.run()
    case.check(calls=2)


@pytest.mark.parametrize("gate", [0, 4])
def test_a_gate_without_factors_changes_nothing(aot: AotLibrary, gate: int, rng: np.random.Generator) -> None:
    case = Embedding(TABLES["expand"], rng)
    case.gate[...] = gate
    before = case.record.copy()
    case.operator(aot).run()
    for found, start in zip((case.A, case.G, case.record), (*case.start, before)):
        np.testing.assert_array_equal(found, start)


@pytest.mark.parametrize("name", ["expand", "reduce"])
def test_each_factor_has_its_gate(aot: AotLibrary, name: str, rng: np.random.Generator) -> None:
    case = Embedding(TABLES[name], rng, separate=True)
    operator = case.operator(aot)
    case.gate[...] = 1
    operator.run()
    case.check_A()
    case.check_record()
    np.testing.assert_array_equal(case.G, case.start[1])
    assert case.record[STAGED_WEIGHTS + 1] == 0
    case.gate[...] = 2
    operator.run()
    case.check_A()
    case.check_G()
    case.check_record(calls=2)


def test_what_does_not_fit_is_refused(aot: AotLibrary, rng: np.random.Generator) -> None:
    case = Embedding(TABLES["expand"], rng)
    case.A = case.A[:-1].copy()
    with pytest.raises(AotError, match="EmbeddingStatistics: A has 4 numbers, expected 5"):
        case.operator(aot).run()
    case = Embedding(TABLES["expand"], rng)
    case.G = case.G[:-1].copy()
    with pytest.raises(AotError, match=r"EmbeddingStatistics: a sum has 72 numbers, expected 1 x 9\^2"):
        case.operator(aot).run()
    case = Embedding(TABLES["expand"], rng)
    case.dout = case.dout[:, :-1].copy()
    with pytest.raises(AotError, match="input and output gradient differ in their leading axes"):
        case.operator(aot).run()
