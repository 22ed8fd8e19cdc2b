"""The CUDA operator of trace-restricted statistics on the emulator, against float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary, AotOperator
from tests.support.cuda_statistics import LAYERS, PERIOD, Batch, Layer

FLOAT = 2.0**-24


class Statistics(Batch):
    """The operator's arrays for one layer."""

    def __init__(self, layer: Layer, rng: np.random.Generator) -> None:
        super().__init__(layer, rng, weights=1)
        self.norms = [(vectors**2).sum(axis=3, keepdims=True) for vectors in (self.a, self.g)]
        # A vector is multiplied by the norm of the other side's vector, so its outer product is weighted by
        # the squared norm.
        self.weighted = [self.a * np.sqrt(self.norms[1]), self.g * np.sqrt(self.norms[0])]
        self.delta = (self.norms[0] * self.norms[1]).sum(axis=(1, 2, 3))
        self.traces = rng.uniform(1, 2, len(self.a)).astype(np.float32)
        self.traces_before = self.traces.copy()

    def operator(self, library: AotLibrary, **attributes: object) -> AotOperator:
        inputs = [self.x, self.dout, self.gate, *self.sums, self.traces, self.record]
        own = {"precision": "float32", **self.layer.attributes(), **attributes}
        return library.operator("TraceRestrictedStatistics", inputs, [self.output], **own)

    def relative_error(self) -> float:
        """The relative error of delta: its terms are positive products of sums of scaled squares."""
        features = self.a.shape[3] + self.g.shape[3]
        return (features + self.a.shape[1] * self.a.shape[2] + 10) * FLOAT

    def check_weighted(self, side: int, precision: str = "float32", calls: int = 1) -> None:
        # The sum of the norm, two roots of it, and the products with the scale and an element.
        roundings = (self.a, self.g)[1 - side].shape[3] + 10
        self.check_sum(side, self.weighted[side], precision, calls, roundings)

    def check_untouched_all(self) -> None:
        for side in (0, 1):
            self.check_untouched(side)
        np.testing.assert_array_equal(self.traces, self.traces_before)
        self.check_record_empty()


@pytest.mark.parametrize("name", LAYERS)
def test_partial_traces(operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int) -> None:
    case = Statistics(LAYERS[name], rng)
    operator = case.operator(operators)
    case.record[PERIOD] = 3
    # Several times, to check that a launch resets its counters.
    for _ in range(3):
        operator.run()
    for side in (0, 1):
        case.check_weighted(side, calls=3)
    expected = 3 * case.delta
    assert (abs(case.traces - expected) <= (case.relative_error() + 4 * FLOAT) * expected).all()
    case.check_record([case.layer.samples], calls=3)


def test_a_batch_without_signal_stages_nothing(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv_groups"], rng)
    case.dout[...] = 0
    case.operator(operators).run()
    for array in (*case.sums, case.traces):
        assert not array.any()


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["dense_many", "conv_groups"])
def test_tensor_cores(operators: AotLibrary, name: str, precision: str, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS[name], rng)
    case.operator(operators, precision=precision).run()
    for side in (0, 1):
        case.check_weighted(side, precision)
        case.check_rounded(side, case.weighted[side], precision)


def test_two_runs_give_the_same_bits(operators: AotLibrary) -> None:
    cases = [Statistics(LAYERS["conv3x3"], np.random.default_rng(3)) for _ in range(2)]
    for case in cases:
        case.operator(operators).run()
    np.testing.assert_array_equal(cases[0].sums[0], cases[1].sums[0])
    np.testing.assert_array_equal(cases[0].traces, cases[1].traces)


@pytest.mark.parametrize("name", ["conv3x3", "conv_reduce"])
def test_a_closed_gate_changes_nothing(operators: AotLibrary, name: str, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = 0
    operator = case.operator(operators)
    operator.run()
    case.check_untouched_all()
    # Both matrices need both sides, so any code takes all statistics.
    case.gate[...] = 1
    operator.run()
    for side in (0, 1):
        case.check_weighted(side)


def test_mismatched_arguments_are_refused(operators: AotLibrary, rng: np.random.Generator) -> None:
    case = Statistics(LAYERS["conv_groups"], rng)
    case.traces = case.traces[:1].copy()
    with pytest.raises(AotError, match="TraceRestrictedStatistics: the traces have 1 numbers, expected 2"):
        case.operator(operators).run()
