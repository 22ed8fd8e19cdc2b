"""The CUDA operators that commit staged statistics and measure gradients, against float64."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from tests.kernels.cuda.test_kronecker_statistics import Statistics
from tests.support.cuda_cases import Running, run
from tests.support.cuda_commit import LAYERS, CommitCase, MeasureCase, several, stage
from tests.support.cuda_statistics import LAYERS as LAYERS_OF_STATISTICS
from tests.support.cuda_statistics import PASSES, PRODUCT, SCALE, STAGED_WEIGHTS

HANDLE = 41
JUDGE = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.POINTER(ctypes.c_float),
    ctypes.POINTER(ctypes.c_int64),
)


class Judge:
    """Records its input and returns preset answers: per layer decision, period, calls and skipped passes."""

    def __init__(self, library: AotLibrary) -> None:
        self.told: list[np.ndarray] = []
        self.answers: list[tuple[int, int, int, int]] = []
        self.function = JUDGE(self._judge)
        self.register = library.library.ms_kfac_set_judge
        self.register(self.function)

    def _judge(self, handle: int, layers: int, numbers: object, answers: object) -> None:
        assert handle == HANDLE
        self.told.append(np.ctypeslib.as_array(numbers, (layers, 10)).copy())
        np.ctypeslib.as_array(answers, (layers, 4))[...] = self.answers


@pytest.fixture
def judge(operators: AotLibrary) -> Iterator[Judge]:
    """A judge that is registered for one test."""
    registered = Judge(operators)
    yield registered
    registered.register(None)


def test_every_kind_of_layer(operators: AotLibrary, rng: np.random.Generator, schedule: int) -> None:
    case = CommitCase(list(LAYERS.values()), rng)
    running = Running(operators, case)
    case.check(running.run())
    # With the `past` values of a first commit, and the layers that it did not commit.
    for _ in range(2):
        running.advance()
        stage(case, case.inputs, rng)
        running.load()
        case.check(running.run())


def test_a_commit_that_is_not_due_changes_nothing(
    operators: AotLibrary, rng: np.random.Generator, schedule: int
) -> None:
    case = CommitCase(list(LAYERS.values()), rng, due=0)
    case.check(run(operators, case))


def test_more_layers_than_a_launch_describes(operators: AotLibrary, rng: np.random.Generator) -> None:
    layers = [*several(LAYERS["moments"], 60), *several(LAYERS["homogeneous"], 40)]
    case = CommitCase(layers, rng)
    case.state(case.inputs, 97).staged[1][..., 0, 0] = np.nan
    case.check(run(operators, case))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "array", "place"),
    [
        ("large", 0, (129, 129)),
        ("groups", 1, (2, 5, 5)),
        ("moments", 2, (3, 6)),
        ("diagonals", 3, (0,)),
        ("rows", 0, (7, 0)),
        ("roots", 2, (0,)),
        ("homogeneous", 1, (2, 4, 4)),
    ],
)
def test_non_finite_statistics_are_refused(
    operators: AotLibrary,
    name: str,
    array: int,
    place: tuple[int, ...],
    value: float,
    rng: np.random.Generator,
) -> None:
    case = CommitCase([LAYERS["large"], LAYERS[name], LAYERS["rows"]], rng)
    case.state(case.inputs, 1).staged[array][place] = value
    assert not case.finite(1)
    running = Running(operators, case)
    found = running.run()
    case.check(found)
    assert found[4][0] == 6.0
    # A word that one commit raised does not affect another one.
    running.advance()
    stage(case, case.inputs, rng)
    running.load()
    case.check(running.run())
    assert found[4][0] == 6.0


@pytest.mark.parametrize("number", [PRODUCT, SCALE])
def test_a_record_that_is_not_finite_is_refused(
    operators: AotLibrary, number: int, rng: np.random.Generator
) -> None:
    case = CommitCase([LAYERS["large"], LAYERS["rows"]], rng)
    case.state(case.inputs, 1).record[number] = np.nan
    assert not case.finite(1)
    found = run(operators, case)
    case.check(found)
    # Rows have no average: without the batch there are none.
    assert not case.state(found, 1).weights.any()


def test_unused_values_may_be_non_finite(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = CommitCase([LAYERS["diagonals"], LAYERS["no_pass"]], rng)
    # Factors that no pass took, and a layer without a pass.
    for layer in (0, 1):
        case.state(case.inputs, layer).staged[0][...] = np.nan
    case.state(case.inputs, 1).record[PRODUCT] = np.nan
    case.check(run(operators, case))


def test_the_judge_answers_one_commit_late(
    operators: AotLibrary, judge: Judge, rng: np.random.Generator
) -> None:
    case = CommitCase(
        [LAYERS["large"], LAYERS["rows"], LAYERS["roots"], LAYERS["no_pass"]], rng, judge=HANDLE
    )
    case.state(case.inputs, 1).staged[0][0, 0] = np.nan
    running = Running(operators, case)
    told = [case.told(index) for index in range(4)]
    case.check(running.run())
    assert not judge.told
    # Answers about a layer without a pass are ignored.
    judge.answers = [(0, 3, 1, 0), (0, 2, 1, 2), (1, 4, 2, 1), (-1, 9, 5, 7)]
    running.advance()
    stage(case, case.inputs, rng)
    running.load()
    case.answers, case.periods, case.calls = [0, 0, 1, 1], [3, 2, 4, None], [1, 1, 2, 1]
    case.skipped = [0, 2, 1, 0]
    after = running.run()
    np.testing.assert_allclose(judge.told[0], told, rtol=1e-6)
    assert judge.told[0][:, 8].tolist() == [1, 0, 1, 1]
    case.check(after)
    # Each commit is judged once, and the next answers replace these.
    told = [case.told(index) for index in range(4)]
    judge.answers = [(1, 3, 3, 0), (1, 2, 4, 0), (0, 1, 2, 3), (1, 5, 1, 0)]
    running.advance()
    stage(case, case.inputs, rng)
    running.load()
    case.answers, case.periods, case.calls = [1, 1, 0, 1], [3, 2, 1, 5], [3, 4, 2, 1]
    case.skipped = [0, 0, 3, 0]
    case.check(running.run())
    assert len(judge.told) == 2
    np.testing.assert_allclose(judge.told[1], told, rtol=1e-6)


def test_the_judge_is_told_how_many_kernels_staged_a_batch(
    operators: AotLibrary, judge: Judge, rng: np.random.Generator
) -> None:
    """Two calls of a layer in one pass, then a micro-batch of the same two.

    A kernel of another network ran twice before, on a record at the same address.
    """
    layer = Statistics(LAYERS_OF_STATISTICS["dense"], rng)
    gone = layer.operator(operators)
    gone.run()
    gone.run()
    del gone
    layer.record[...] = 0
    kernels = [layer.operator(operators) for _ in range(2)]
    case = CommitCase([LAYERS["large"]], rng, judge=HANDLE)
    arrays = [array for matrices in layer.sums for array in (matrices, np.zeros_like(matrices))]
    inputs = [*case.inputs[:6], layer.record, np.zeros(2, np.float32), *arrays]
    inputs[3] = np.zeros(2, np.float32)
    commit = operators.operator("CommitStatistics", inputs, case.outputs, **case.attributes)
    judge.answers = [(1, 4, 2, 0)]
    for order in ((0, 1, 0, 1), (0, 0)):
        for kernel in order:
            kernels[kernel].run()
        commit.run()
    # Without passes, to hear of the commit before.
    commit.run()
    assert [told[0, 9] for told in judge.told] == [2, 1]
    assert inputs[5].tolist() == [2]


def test_the_judge_empties_a_layer(operators: AotLibrary, judge: Judge, rng: np.random.Generator) -> None:
    case = CommitCase([LAYERS["large"], LAYERS["rows"]], rng, judge=HANDLE)
    running = Running(operators, case)
    case.check(running.run())
    judge.answers = [(-1, 1, 1, 0), (-1, 1, 1, 0)]
    running.advance()
    # One layer with a batch, one without.
    record = case.state(case.inputs, 0).record
    record[[PASSES, *range(STAGED_WEIGHTS, len(record))]] = 1
    running.load()
    case.answers, case.periods = [-1, -1], [1, 1]
    found = running.run()
    case.check(found)
    for index in (0, 1):
        state = case.state(found, index)
        assert not state.weights.any()
        assert not state.past.any()
        assert found[4][1 + index] == 0


def test_answers_wait_for_a_commit_that_is_due(
    operators: AotLibrary, judge: Judge, rng: np.random.Generator
) -> None:
    case = CommitCase([LAYERS["large"]], rng, judge=HANDLE)
    running = Running(operators, case)
    case.check(running.run())
    judge.answers = [(0, 2, 1, 0)]
    running.advance()
    stage(case, case.inputs, rng)
    case.answers, case.periods = [0], [2]
    for due in (0, 0, 1):
        case.inputs[0][...] = due
        running.load()
        case.check(running.run())
    # The judge is not called for a commit that is not due.
    assert len(judge.told) == 1


@pytest.mark.parametrize("handle", [0, HANDLE])
def test_without_a_judge_all_that_is_finite_is_committed(
    operators: AotLibrary, handle: int, rng: np.random.Generator
) -> None:
    case = CommitCase([LAYERS["large"], LAYERS["rows"]], rng, judge=handle)
    running = Running(operators, case)
    for _ in range(2):
        case.check(running.run())
        running.advance()
        stage(case, case.inputs, rng)
        running.load()


def test_commit_refuses_mismatched_shapes(operators: AotLibrary, rng: np.random.Generator) -> None:
    def message(place: int) -> str:
        case = CommitCase([LAYERS["moments"]], rng)
        case.inputs[place] = case.inputs[place].ravel()[:-1].copy()
        with pytest.raises(AotError, match="CommitStatistics: ") as error:
            run(operators, case)
        return str(error.value)

    assert "scales must be two numbers" in message(1)
    assert "measured must have three numbers" in message(2)
    assert "a record does not fit its layer's weights" in message(6)
    assert "an average does not fit its staged array" in message(-1)
    layer = LAYERS["rows"]
    many = dataclasses.replace(layer, staged=(1.0,) * 9, weights=(1.0,) * 9, past=(1.0,) * 9)
    with pytest.raises(AotError, match="layer0: weights must be at most 8, got 9"):
        run(operators, CommitCase([many], rng))


@pytest.mark.parametrize("due", [0, 1])
def test_measures(operators: AotLibrary, due: int, rng: np.random.Generator, schedule: int) -> None:
    case = MeasureCase(rng, due=due)
    running = Running(operators, case)
    # Twice, to check that a launch resets its counters.
    for _ in range(2):
        case.check(running.run())


def test_measures_of_more_layers_than_a_launch_describes(
    operators: AotLibrary, rng: np.random.Generator
) -> None:
    case = MeasureCase(rng, copies=12)
    case.check(run(operators, case))


def test_measuring_refuses_mismatched_shapes(operators: AotLibrary, rng: np.random.Generator) -> None:
    def refused(case: MeasureCase, text: str) -> None:
        with pytest.raises(AotError, match=f"MeasureGradients: {text}"):
            run(operators, case)

    case = MeasureCase(rng)
    case.inputs[3] = case.inputs[3][:-1].copy()
    refused(case, "a gradient does not fit its parameter")
    case = MeasureCase(rng)
    value = 2 + case.attributes["gradients"]
    for place in (2, value):
        case.inputs[place] = case.inputs[place][:-1].copy()
    refused(case, "a bias does not fit its weight")
    case = MeasureCase(rng)
    case.attributes["biases"] = case.attributes["biases"][1:]
    refused(case, "biases and positions must be those of the layers")
