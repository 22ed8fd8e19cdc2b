"""The CUDA operator of embedding statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.support.cuda_statistics import STAGED_WEIGHTS
from tests.support.embedding_statistics import TABLES, Embedding, Table


@pytest.mark.parametrize("multiprocessors", ["1", "100"])
@pytest.mark.parametrize("name", TABLES)
def test_passes_replace_and_join(
    operators: AotLibrary,
    name: str,
    multiprocessors: str,
    rng: np.random.Generator,
    schedule: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a small GPU blocks take several tasks. On a large one sums are split into parts."""
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", multiprocessors)
    case = Embedding(TABLES[name], rng)
    operator = case.operator(operators)
    operator.run()
    case.check()
    # Again, to check that a launch resets its counters and its counts.
    operator.run()
    case.check(calls=2)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_precisions(operators: AotLibrary, precision: str, rng: np.random.Generator) -> None:
    case = Embedding(TABLES["large_width"], rng, precision=precision)
    case.operator(operators).run()
    case.check()


def test_many_blocks(
    operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a thousand blocks wait for one another: sums over locations, counts, products, the diagonal."""
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", "300")
    case = Embedding(Table((1200, 13), 900, 70, reduce=True), rng)
    case.operator(operators).run()
    case.check()
    if operators.device == "cpu":
        assert operators.library.emulator_largest_launch() > 1000


@pytest.mark.parametrize("name", ["many_ids", "large_vocabulary", "large_width"])
def test_two_runs_give_the_same_bits(
    operators: AotLibrary, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [Embedding(TABLES[name], np.random.default_rng(3)) for _ in range(2)]
    # On the emulator the schedule differs, so that another block is the last one.
    for case, seed in zip(cases, ("1", "2")):
        monkeypatch.setenv("EMULATOR_SEED", seed)
        case.operator(operators).run()
    for one, other in zip(*((case.A, case.G, case.record) for case in cases)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["expand", "reduce"])
def test_each_factor_has_its_gate(operators: AotLibrary, name: str, rng: np.random.Generator) -> None:
    case = Embedding(TABLES[name], rng, separate=True)
    operator = case.operator(operators)
    for gate in (0, 4):
        case.gate[...] = gate
        operator.run()
        np.testing.assert_array_equal(case.A, case.start[0])
        assert not case.record[STAGED_WEIGHTS:].any()
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


def test_what_does_not_fit_is_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Embedding(TABLES["expand"], rng)
    case.A = case.A[:-1].copy()
    with pytest.raises(AotError, match="EmbeddingStatistics: A has 4 numbers, expected 5"):
        case.operator(operators).run()
    case = Embedding(TABLES["expand"], rng)
    case.record = case.record[:-1].copy()
    with pytest.raises(AotError, match="EmbeddingStatistics: the record has 6 numbers, expected 7"):
        case.operator(operators).run()
    case = Embedding(TABLES["expand"], rng)
    case.dout = case.dout[:, :-1].copy()
    with pytest.raises(AotError, match="input and output gradient differ in their leading axes"):
        case.operator(operators)
