"""Launches of over a thousand blocks, which wait for one another by phases and in several rounds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.kernels.cuda.test_eigenbasis_statistics import Statistics as EigenbasisStatistics
from tests.kernels.cuda.test_kronecker_statistics import Statistics as KroneckerStatistics
from tests.kernels.cuda.test_sherman_morrison_statistics import Statistics as ShermanMorrisonStatistics
from tests.kernels.cuda.test_trace_restricted_statistics import Statistics as TraceRestrictedStatistics
from tests.support.cuda_statistics import Layer

# Work is split among more blocks than most GPUs have.
MANY = "300"


def assert_many_blocks(operators: AotLibrary) -> None:
    """Checks the launches on the emulator; on a GPU the same shapes give the same blocks."""
    if operators.device == "cpu":
        assert operators.library.emulator_largest_launch() > 1000


def test_kronecker(operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", MANY)
    # The reduce setting, where all sums wait for the vectors.
    case = KroneckerStatistics(Layer(16, 9, samples=640, locations=(2,), bias=True, reduce=True), rng)
    operator = case.operator(operators)
    for calls in (1, 2):
        operator.run()
        for side in (0, 1):
            case.check(side, "float32", calls)
    assert_many_blocks(operators)


def test_trace_restricted(
    operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", MANY)
    case = TraceRestrictedStatistics(Layer(20, 12, samples=9600, bias=True), rng)
    operator = case.operator(operators)
    operator.run()
    for side in (0, 1):
        case.check_weighted(side)
    delta = case.delta
    assert (abs(case.traces - delta) <= case.relative_error() * delta).all()
    case.check_record([case.layer.samples])
    assert_many_blocks(operators)


def test_sherman_morrison(
    operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", MANY)
    case = ShermanMorrisonStatistics(Layer(300, 300, samples=3900), rng, full=0.0)
    operator = case.operator(operators)
    operator.run()
    for side in (0, 1):
        case.check(side, full=False)
    assert_many_blocks(operators)


def test_eigenbasis_in_several_rounds(
    operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One multiprocessor holds 1927 samples in its workspace; a second round overwrites what the first reads.
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", "1")
    case = EigenbasisStatistics(Layer(1, 8, kernel=(3, 3), size=(6, 6), samples=2200), rng)
    operator = case.operator(operators)
    operator.run()
    case.check_moments()
    assert_many_blocks(operators)


def test_the_number_of_multiprocessors_is_checked(
    operators: AotLibrary, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MS_KFAC_MULTIPROCESSORS", "many")
    case = KroneckerStatistics(Layer(3, 2), rng)
    with pytest.raises(
        AotError, match="MS_KFAC_MULTIPROCESSORS must be a whole number from 1 to 4096, got many"
    ):
        case.operator(operators)
