"""Passes that replace the staged batch or are added to it, on the emulator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.support.aot import AotLibrary
from tests.kernels.cuda.test_eigenbasis_statistics import Statistics as Eigenbasis
from tests.kernels.cuda.test_kronecker_statistics import Statistics as Kronecker
from tests.kernels.cuda.test_sherman_morrison_statistics import Statistics as ShermanMorrison
from tests.kernels.cuda.test_trace_restricted_statistics import Statistics as TraceRestricted
from tests.support.cuda_capture import Capture
from tests.support.cuda_statistics import (
    CAPTURE_ERROR,
    LAYERS,
    PASSES,
    PRODUCT,
    PRODUCTS,
    SCALE,
    STAGED_WEIGHTS,
    Batch,
    Layer,
)

# Layers that exercise split-K parts and products by lags.
SMALL = {
    "dense": LAYERS["dense"],
    "conv_groups": LAYERS["conv_groups"],
    "conv_reduce": LAYERS["conv_reduce"],
    "parts": Layer(20, 33, samples=700, bias=True),
}


class Kind(NamedTuple):
    """A statistics operator: its arrays, and the index of the weight of each array."""

    statistics: type
    arrays: tuple[str, ...]
    weight_of: tuple[int, ...]
    options: dict[str, object]


KINDS = {
    "kronecker": Kind(Kronecker, ("sums",), (0, 1), {"separate": True}),
    "trace_restricted": Kind(TraceRestricted, ("sums", "traces"), (0, 0, 0), {}),
    "sherman_morrison": Kind(ShermanMorrison, ("sums", "diagonals"), (0, 1, 2, 3), {"separate": True}),
    "eigenbasis": Kind(Eigenbasis, ("sums", "moments"), (0, 1, 2), {"separate": True}),
}


class Passes:
    """Passes of one operator over batches of one layer. Each pass also runs alone, into arrays of zeros."""

    def __init__(
        self, library: AotLibrary, kind: Kind, layer: Layer, rng: np.random.Generator, period: int
    ) -> None:
        self.rng, self.kind, self.layer = rng, kind, layer
        self.case = kind.statistics(layer, rng)
        self.alone = kind.statistics(layer, rng)
        if hasattr(self.case, "bases"):
            for own, other in zip(self.alone.bases, self.case.bases):
                own[...] = other
        self.case.record[1], self.alone.record[1] = period, 1
        for array in self.arrays(self.case):
            # Values of an older batch must not even be multiplied, since NaN would propagate.
            array[...] = np.nan
        self.operators = [of.operator(library, **kind.options) for of in (self.case, self.alone)]

    def arrays(self, of: Batch) -> list[np.ndarray]:
        """All staged arrays."""
        found: list[np.ndarray] = []
        for name in self.kind.arrays:
            value = getattr(of, name)
            found += value if isinstance(value, list) else [value]
        return found

    def run(self, gate: int = 7) -> tuple[list[np.ndarray], np.ndarray, Capture]:
        """Runs a pass on a new batch. Returns what this pass alone stages, takes and records."""
        x, dout = self.layer.draw(self.rng)
        for of, operator in zip((self.case, self.alone), self.operators):
            of.x[...], of.dout[...] = x, dout
            of.gate[...] = gate
            for array in self.arrays(of) if of is self.alone else ():
                array[...] = 0
            operator.run()
        taken = self.alone.record[STAGED_WEIGHTS:].copy()
        return [array.copy() for array in self.arrays(self.alone)], taken, self.alone.capture()

    def check(self, expected: list[np.ndarray | None]) -> None:
        """Checks the staged arrays. None stands for an array that still has its initial values."""
        for index, (array, value) in enumerate(zip(self.arrays(self.case), expected)):
            if value is None:
                assert np.isnan(array).all(), index
            else:
                np.testing.assert_array_equal(array, value, err_msg=str(index))

    def check_numbers(self, staged: list[Capture], since_commit: list[Capture], passes: int) -> None:
        """Checks product and scale of the record, for the staged batch and all passes since the commit."""
        record, scale = self.case.record, sum(one.scale for one in since_commit)
        assert record[PASSES] == passes
        error = CAPTURE_ERROR * scale
        assert abs(record[PRODUCT] - sum(one.product for one in staged)) <= error
        assert abs(record[PRODUCTS] - sum(one.product for one in since_commit)) <= error
        assert abs(record[SCALE] - sum(one.scale for one in staged)) <= error


@pytest.mark.parametrize("layer", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_replaces_the_one_before(
    operators: AotLibrary, kind: str, layer: str, rng: np.random.Generator
) -> None:
    passes = Passes(operators, KINDS[kind], SMALL[layer], rng, period=1)
    before: list[Capture] = []
    for index in range(3):
        own, taken, numbers = passes.run()
        before.append(numbers)
        passes.check(list(own))
        np.testing.assert_array_equal(passes.case.record[STAGED_WEIGHTS:], taken)
        passes.check_numbers([numbers], before, index + 1)


@pytest.mark.parametrize("layer", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_two_passes_add_up(operators: AotLibrary, kind: str, layer: str, rng: np.random.Generator) -> None:
    passes = Passes(operators, KINDS[kind], SMALL[layer], rng, period=2)
    before: list[Capture] = []
    for index in range(2):
        first, taken, numbers = passes.run()
        before.append(numbers)
        passes.check(list(first))
        second, _, numbers = passes.run()
        before.append(numbers)
        for array, one, two in zip(passes.arrays(passes.case), first, second):
            # The second pass is added on the fly, with one rounding or a few.
            np.testing.assert_allclose(array, one + two, rtol=0, atol=1e-5 * abs(one + two).max())
        np.testing.assert_array_equal(passes.case.record[STAGED_WEIGHTS:], 2 * taken)
        passes.check_numbers(before[-2:], before, 2 * (index + 1))


@pytest.mark.parametrize("kind", ["kronecker", "sherman_morrison", "eigenbasis"])
def test_what_a_pass_does_not_take_stays_staged_without_weight(
    operators: AotLibrary, kind: str, rng: np.random.Generator
) -> None:
    passes = Passes(operators, KINDS[kind], SMALL["conv_groups"], rng, period=2)
    of_A = {0, 2} if kind == "sherman_morrison" else {0}
    weight_of = KINDS[kind].weight_of
    weights = passes.case.record[STAGED_WEIGHTS:]

    def merged(old: list[np.ndarray | None], new: list[np.ndarray], inputs: bool) -> list[np.ndarray | None]:
        return [two if (weight in of_A) == inputs else one for one, two, weight in zip(old, new, weight_of)]

    held: list[np.ndarray | None] = [None] * len(weight_of)
    # Inputs alone, then gradients alone. These replace an older batch although the pass adds to another one.
    own, taken_A, _ = passes.run(gate=1)
    held = merged(held, own, inputs=True)
    passes.check(held)
    np.testing.assert_array_equal(weights, taken_A)
    assert {index for index, weight in enumerate(taken_A) if weight} == of_A
    own, taken_G, _ = passes.run(gate=2)
    held = merged(held, own, inputs=False)
    passes.check(held)
    np.testing.assert_array_equal(weights, taken_A + taken_G)
    # A third pass begins a new batch. The statistics that it does not take lose their weight.
    own, _, _ = passes.run(gate=2)
    held = merged(held, own, inputs=False)
    passes.check(held)
    np.testing.assert_array_equal(weights, taken_G)


@pytest.mark.parametrize("full", [0.0, 1.0])
def test_factors_are_staged_while_they_are_wanted(
    operators: AotLibrary, full: float, rng: np.random.Generator
) -> None:
    passes = Passes(operators, KINDS["sherman_morrison"], SMALL["conv_groups"], rng, period=2)
    passes.run()
    for of in (passes.case, passes.alone):
        of.full[...] = full
    before = [array.copy() for array in passes.case.sums]
    _, taken, _ = passes.run()
    assert (taken[:2] > 0).all() == (full > 0)
    for now, old in zip(passes.case.sums, before):
        assert (now != old).any() == (full > 0)
    # The weights of the first pass are kept.
    assert (passes.case.record[STAGED_WEIGHTS : STAGED_WEIGHTS + 2] > 0).all()
