"""Operators of the CPU's library that stage and commit statistics, without MindSpore, against float64."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary
from ms_kfac.kernels.library import library
from tests.support.cuda_statistics import LAYERS, Layer
from tests.support.staged import (
    KINDS,
    PASSES,
    PERIOD,
    PRODUCT,
    PRODUCTS,
    SCALE,
    WEIGHTS,
    Eigenbasis,
    Kind,
    Kronecker,
    ShermanMorrison,
    capture_check,
    record_of,
    signed_sum,
)

pytestmark = pytest.mark.skipif(not library("CPU").path, reason=library("CPU").reason)

# Sums of some thousand products in float32; of s, fourth powers of rotated vectors.
TOLERANCE = 2e-5
# What a commit may rely on, of the product to its scale.
CHECK_TOLERANCE = 1e-5

NAMES = [
    *("dense", "dense_locations", "dense_reduce", "dense_float16", "conv3x3", "conv_odd", "conv_same"),
    *("conv_groups", "conv_reduce", "conv_float16"),
]


class Passes:
    """Runs an operator on drawn batches, and keeps what one must find afterwards."""

    def __init__(self, aot: AotLibrary, kind: Kind, rng: np.random.Generator, dtype: Any = None) -> None:
        self.kind, self.rng, self.aot, self.dtype = kind, rng, aot, dtype
        self.expected = [array.astype(np.float64) for array in kind.arrays]
        self.record = kind.record.astype(np.float64)

    def run(self, joins: bool, taken: set[int] | None = None) -> None:
        """One pass that takes the arrays of these weights; the others stay."""
        kind = self.kind
        x, dout = kind.layer.draw(self.rng)
        if self.dtype is not None:
            x, dout = x.astype(self.dtype), dout.astype(self.dtype)
        taken = set(range(kind.weights)) if taken is None else taken
        inputs = [x, dout, kind.gate, *kind.inputs()]
        self.aot.operator(kind.name, inputs, [np.zeros(1, np.float32)], **kind.attributes).run()
        for index, (found, weight) in enumerate(zip(kind.batch(x, dout), kind.weight_of)):
            if weight in taken:
                own = joins and self.record[WEIGHTS + weight] > 0
                self.expected[index] = found + (self.expected[index] if own else 0)
        for weight, count in enumerate(kind.counts()):
            before = self.record[WEIGHTS + weight] if joins else 0
            self.record[WEIGHTS + weight] = before + (count if weight in taken else 0)
        product, scale = capture_check(kind.layer, x, dout)
        self.record[PRODUCT] = product + (self.record[PRODUCT] if joins else 0)
        self.record[SCALE] = scale + (self.record[SCALE] if joins else 0)
        self.record[PRODUCTS] += product
        self.record[PASSES] += 1
        self.check()

    def check(self) -> None:
        for found, expected in zip(self.kind.arrays, self.expected):
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * abs(expected).max())
        record = self.kind.record
        np.testing.assert_array_equal(record[[PASSES, PERIOD]], self.record[[PASSES, PERIOD]])
        np.testing.assert_array_equal(record[WEIGHTS:], self.record[WEIGHTS:])
        np.testing.assert_allclose(
            record[[PRODUCT, PRODUCTS, SCALE]],
            self.record[[PRODUCT, PRODUCTS, SCALE]],
            rtol=0,
            atol=CHECK_TOLERANCE * self.record[SCALE] * self.record[PASSES],
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_passes_replace_or_join(
    aot: AotLibrary, kind: type[Kind], name: str, rng: np.random.Generator
) -> None:
    passes = Passes(aot, kind(LAYERS[name], rng, separate=False), rng)
    for _ in range(2):
        passes.run(joins=False)
    of_kind, passes.record[:] = passes.kind, 0
    of_kind.record[:] = 0
    of_kind.record[PERIOD] = passes.record[PERIOD] = 2
    for joins in (False, True, False, True):
        passes.run(joins)


def test_inputs_of_float64(aot: AotLibrary, rng: np.random.Generator) -> None:
    passes = Passes(aot, Kronecker(LAYERS["conv_odd"], rng, separate=False), rng, np.float64)
    passes.run(joins=False)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_closed_gate_leaves_everything(aot: AotLibrary, kind: type[Kind], rng: np.random.Generator) -> None:
    closed = kind(LAYERS["dense"], rng, separate=False)
    closed.gate[...] = 0
    closed.record[:] = rng.standard_normal(closed.record.shape)
    before = [array.copy() for array in closed.inputs()]
    x, dout = (np.full_like(array, np.nan) for array in closed.layer.draw(rng))
    inputs = [x, dout, closed.gate, *closed.inputs()]
    aot.operator(closed.name, inputs, [np.zeros(1, np.float32)], **closed.attributes).run()
    for found, expected in zip(closed.inputs(), before):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [Kronecker, ShermanMorrison, Eigenbasis], ids=lambda kind: kind.name)
def test_factors_of_separate_gates(aot: AotLibrary, kind: type[Kind], rng: np.random.Generator) -> None:
    passes = Passes(aot, kind(LAYERS["conv_groups"], rng, separate=True), rng)
    passes.kind.record[PERIOD] = passes.record[PERIOD] = 3
    inputs = {Kronecker: {0}, ShermanMorrison: {0, 2}, Eigenbasis: {0}}[kind]
    gradients = {Kronecker: {1}, ShermanMorrison: {1, 3}, Eigenbasis: {1, 2}}[kind]
    # G is replaced, though the pass joins a batch: what it holds is older than that.
    for gate, taken in ((1, inputs), (2, gradients), (3, None)):
        passes.kind.gate[...] = gate
        passes.run(joins=gate > 1, taken=taken)


def test_moments_without_factors(aot: AotLibrary, rng: np.random.Generator) -> None:
    passes = Passes(aot, Eigenbasis(LAYERS["conv_groups"], rng, separate=False), rng)
    passes.kind.gate[...] = 4
    passes.run(joins=False, taken={2})


def test_diagonals_without_factors(aot: AotLibrary, rng: np.random.Generator) -> None:
    kind = ShermanMorrison(LAYERS["dense"], rng, separate=False)
    kind.full[...] = 0
    Passes(aot, kind, rng).run(joins=False, taken={2, 3})


def test_a_record_that_does_not_fit_is_refused(aot: AotLibrary, rng: np.random.Generator) -> None:
    kind = Kronecker(LAYERS["dense"], rng, separate=False)
    kind.record = record_of(3)
    with pytest.raises(AotError, match="the record has 8 numbers, expected 7"):
        Passes(aot, kind, rng).run(joins=False)


def test_the_product_is_of_the_weight_gradient(aot: AotLibrary, rng: np.random.Generator) -> None:
    layer = LAYERS["conv_groups"]
    kind = Kronecker(layer, rng, separate=False)
    x, dout = layer.draw(rng)
    inputs = [x, dout, kind.gate, *kind.inputs()]
    aot.operator(kind.name, inputs, [np.zeros(1, np.float32)], **kind.attributes).run()
    a, g = layer.all_vectors(x, dout)
    joint = np.einsum("gnto,gnti->goi", g, a) / (layer.gradient_scale * layer.samples)
    weight = joint[:, :, :-1].reshape(layer.outputs, layer.inputs // layer.groups, 3, 3)
    gradient, bias = weight.astype(np.float32), joint[:, :, -1].reshape(-1).astype(np.float32)
    measured = measure(aot, [(gradient, bias, gradient, bias)])
    scale = kind.record[SCALE]
    np.testing.assert_allclose(measured[0, 0], kind.record[PRODUCT], rtol=0, atol=CHECK_TOLERANCE * scale)


def measure(
    aot: AotLibrary,
    layers: list[tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]],
    due: int = 1,
) -> np.ndarray:
    gradients = [array for layer in layers for array in layer[:2] if array is not None]
    values = [array for layer in layers for array in layer[2:] if array is not None]
    measured = np.full((len(layers), 3), np.nan, np.float32)
    biases = [int(layer[1] is not None) for layer in layers]
    # The step's gradients come in another order, and one of them is no layer's.
    inputs = [np.array(due, np.int32), np.ones(3, np.float32), *reversed(gradients), *values]
    positions = list(range(len(gradients), 0, -1))
    count = len(gradients) + 1
    attributes = {"layers": len(layers), "biases": biases, "gradients": count, "positions": positions}
    aot.operator("MeasureGradients", inputs, [measured], **attributes).run()
    return measured


def test_measured_gradients(aot: AotLibrary, rng: np.random.Generator) -> None:
    layers = []
    for shape, bias in (((5, 7), True), ((6, 3, 3, 2), False), ((4, 300, 5, 5), True), ((9,), False)):
        weights = [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]
        biases = [rng.standard_normal(shape[0]).astype(np.float32) if bias else None for _ in range(2)]
        layers.append((weights[0], biases[0], weights[1], biases[1]))
    found = measure(aot, layers)
    for (gradient, bias_gradient, weight, bias), measured in zip(layers, found):
        parts = [part for part in (gradient, bias_gradient) if part is not None]
        norm = np.sqrt(sum((part.astype(np.float64) ** 2).sum() for part in parts))
        expected = (signed_sum(gradient, bias_gradient), signed_sum(weight, bias), norm)
        np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-6 * norm)
    np.testing.assert_array_equal(measure(aot, layers, due=0), 0)
    with pytest.raises(AotError, match="does not fit its parameter"):
        measure(aot, [(layers[0][0], None, layers[1][2], None)])


class Bank:
    """The arrays of three layers that are committed: A and G; Phi, Psi and traces by roots; rows alone."""

    def __init__(self, rng: np.random.Generator) -> None:
        def draw(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        self.records = [record_of(2), record_of(1), record_of(3)]
        self.weights = [np.zeros(count, np.float32) for count in (2, 1, 3)]
        self.A, self.G = draw(2, 4, 4), draw(2, 3, 3)
        self.A_average, self.G_average = draw(2, 4, 4), draw(2, 3, 3)
        self.Phi, self.Psi, self.delta = draw(4, 4), draw(3, 3), np.array([40.0], np.float32)
        self.Phi_average, self.Psi_average, self.traces = draw(4, 4), draw(3, 3), draw(2)
        self.A_rows, self.G_rows = draw(5, 5), draw(4, 4)
        self.due, self.scales = np.array(1, np.int32), np.array([0.5, 0.25], np.float32)
        self.measured = np.arange(9, dtype=np.float32).reshape(3, 3)
        self.past, self.outcome = np.zeros(6, np.float32), np.zeros(4, np.float32)
        self.calls = np.ones(3, np.float32)

    def inputs(self) -> list[np.ndarray]:
        return [
            *(self.due, self.scales, self.measured, self.past, self.outcome, self.calls),
            *(self.records[0], self.weights[0], self.A, self.A_average, self.G, self.G_average),
            *(self.records[1], self.weights[1], self.Phi, self.Phi_average, self.Psi, self.Psi_average),
            *(self.delta, self.traces),
            *(self.records[2], self.weights[2], self.A_rows, self.G_rows),
        ]

    def stage(self, weights: list[list[float]]) -> None:
        for record, staged in zip(self.records, weights):
            record[[PASSES, PRODUCT, PRODUCTS, SCALE]] = 2, 8, 12, 20
            record[WEIGHTS:] = staged

    def commit(self, aot: AotLibrary, judge: int = 0) -> None:
        attributes = {
            "layers": "dense\nconvolution\nlast\n",
            "arrays": [2, 3, 2],
            "weights": [2, 1, 3],
            "weight_of": [0, 1, 0, 0, 0, 0, 1],
            "powers": [0, 2, 2, 2, 2, 0, 1],
            "diagonal": [1, 1, 1, 1, 0, 0, 0],
            "averaged": [1, 1, 1, 1, 1, 0, 0],
            "samples": [1, 0, 1, 1, 0, 0],
            "roots": [0, 1, 0],
            "homogeneous": [0, 1, 0],
            "floors": [0.0, 0.01, 0.0],
            "limit": 1.5,
            "judge": judge,
        }
        aot.operator("CommitStatistics", self.inputs(), [np.zeros(1, np.float32)], **attributes).run()


def test_commits_fold_staged_batches_in(aot: AotLibrary, rng: np.random.Generator) -> None:
    bank = Bank(rng)
    # Without a past nothing of what they held is kept.
    for average in (bank.A_average, bank.Phi_average, bank.traces):
        average[...] = np.nan
    averages = [np.zeros_like(bank.A, np.float64), np.zeros_like(bank.G, np.float64)]
    weights, past = [0.0, 0.0], 0.0
    Phi, traces, roots_weight = np.zeros((4, 4)), np.zeros(2), 0.0
    for _ in range(4):
        bank.stage([[3, 6], [5], [7, 8, 2]])
        bank.commit(aot)
        keep = 0.0 if past == 0 else min(1.0, 1.5 / past)
        past = keep * past + 1
        averages = [keep * averages[0] + bank.A, keep * averages[1] + 0.25 * bank.G]
        weights = [keep * weights[0] + 3, keep * weights[1] + 6]
        delta = 0.25 * 40 / 5
        Phi = keep * Phi + bank.Phi * 0.25 * np.sqrt(delta) / delta
        traces = keep * traces + 5 * np.array([delta, np.sqrt(delta)])
        roots_weight = keep * roots_weight + 5
        np.testing.assert_allclose(bank.A_average, averages[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(bank.G_average, averages[1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(bank.Phi_average, Phi, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(bank.traces, traces, rtol=1e-5)
        np.testing.assert_allclose(bank.weights[0], weights, rtol=1e-5)
        np.testing.assert_allclose(bank.weights[1], [roots_weight], rtol=1e-5)
        # The last batch's alone, as the gradients' scale makes it; a weight without arrays as it is.
        np.testing.assert_allclose(bank.weights[2], [7, 16, 2], rtol=1e-6)
        np.testing.assert_array_equal(bank.outcome, [0, 1, 1, 1])
        for record in bank.records:
            np.testing.assert_array_equal(record, record_of(len(record) - WEIGHTS))


def test_nothing_is_committed_before_it_is_due(aot: AotLibrary, rng: np.random.Generator) -> None:
    bank = Bank(rng)
    bank.stage([[3, 6], [5], [7, 8, 2]])
    bank.due[...] = 0
    before = [array.copy() for array in bank.inputs()]
    bank.commit(aot)
    for found, expected in zip(bank.inputs(), before):
        np.testing.assert_array_equal(found, expected)


def test_not_finite_batches_are_refused(aot: AotLibrary, rng: np.random.Generator) -> None:
    bank = Bank(rng)
    for _ in range(2):
        bank.stage([[3, 6], [5], [7, 8, 2]])
        bank.commit(aot)
        bank.A[1, 3, 3], bank.delta[0], bank.G_rows[0, 1] = np.nan, np.inf, np.nan
    np.testing.assert_array_equal(bank.weights[0], [3, 6])
    np.testing.assert_array_equal(bank.weights[1], [5])
    np.testing.assert_array_equal(bank.weights[2], [0, 0, 0])
    # The rows were committed before.
    np.testing.assert_array_equal(bank.outcome, [1, 1, 1, 1])
    assert all(np.isfinite(average).all() for average in (bank.A_average, bank.Phi_average, bank.traces))


Judged = list[tuple[int, np.ndarray]]


class PythonJudge:
    """A judge in Python, as ms_kfac registers one: keeps what it is told, and gives these answers."""

    def __init__(self, aot: AotLibrary) -> None:
        self.told: Judged = []
        self.answers: list[list[int]] = []
        numbers, integers = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int64)
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, numbers, integers)
        self.function = prototype(self._judge)
        self.aot = aot

    def _judge(self, handle: int, layers: int, numbers: Any, answers: Any) -> None:
        found = np.ctypeslib.as_array(numbers, (layers, 10)).copy()
        self.told.append((handle, found))
        np.ctypeslib.as_array(answers, (layers, 4))[:] = self.answers


@pytest.fixture
def judge(aot: AotLibrary) -> Iterator[PythonJudge]:
    """Registered while the test runs, and no longer: the library is that of the process."""
    judge = PythonJudge(aot)
    aot.library.ms_kfac_set_judge(judge.function)
    yield judge
    aot.library.ms_kfac_set_judge(None)


def test_the_judge_decides(aot: AotLibrary, judge: PythonJudge, rng: np.random.Generator) -> None:
    bank = Bank(rng)
    judge.answers = [[1, 3, 1, 0], [1, 1, 2, 0], [1, 2, 1, 0]]
    bank.stage([[3, 6], [5], [7, 8, 2]])
    bank.G_rows[0, 0] = np.nan
    bank.commit(aot, judge=17)
    handle, told = judge.told.pop()
    assert handle == 17
    expected = np.tile([2, 1, 2, 3, 5], (3, 1))
    # Not the last column: what kernels other tests have noted for an array at the same address.
    np.testing.assert_array_equal(told[:, :9], np.hstack([expected, bank.measured, [[1], [1], [0]]]))
    assert [record[PERIOD] for record in bank.records] == [3, 1, 2]
    bank.stage([[3, 6], [5], [7, 8, 2]])
    # The first layer has no pass, and its answer is nothing to it.
    bank.records[0][:] = record_of(2, period=3)
    judge.answers = [[-1, 1, 1, 5], [-1, 4, 1, 0], [0, 1, 3, 2]]
    bank.commit(aot, judge=17)
    assert judge.told[0][1][0, 0] == 0
    np.testing.assert_array_equal(bank.records[0], record_of(2, period=3))
    np.testing.assert_array_equal(bank.weights[0], [3, 6])
    np.testing.assert_array_equal(bank.weights[1], [0])
    np.testing.assert_array_equal(bank.past, [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(bank.outcome, [2, 1, 0, 0])
    assert bank.records[1][PERIOD] == 4
    assert [record[PASSES] for record in bank.records[1:]] == [0, -2]
    np.testing.assert_array_equal(bank.calls, [1, 1, 3])
    judge.told.clear()
    bank.commit(aot, judge=0)
    assert not judge.told


def test_large_layers_on_several_threads(aot: AotLibrary, rng: np.random.Generator) -> None:
    before = aot.library.ms_kfac_threads()
    found = []
    for threads in (1, 3, 3):
        aot.library.ms_kfac_set_threads(threads)
        draws = np.random.default_rng(5)
        layer = Layer(64, 70, kernel=(3, 3), padding=(1, 1, 1, 1), samples=16, size=(20, 21), bias=True)
        passes = Passes(aot, Kronecker(layer, draws, separate=False), draws)
        passes.run(joins=False)
        found.append(passes.kind.record)
    aot.library.ms_kfac_set_threads(before)
    np.testing.assert_array_equal(found[1], found[2])
