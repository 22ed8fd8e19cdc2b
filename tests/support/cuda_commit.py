"""Cases and float64 oracles of the CUDA operators that commit staged statistics and measure gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support.cuda_capture import COLUMNS, ROWS, TAPS, signs
from tests.support.cuda_cases import ROUNDOFF, assert_within, unaligned
from tests.support.cuda_statistics import PASSES, PERIOD, PRODUCT, PRODUCTS, SCALE, STAGED_WEIGHTS
from tests.support.cuda_updates import normal

LIMIT = 4.0
SCALES = (0.5, 0.125)


@dataclass(frozen=True)
class StagedArray:
    """A staged array's shape, the weight it belongs to, and what the attributes tell of it."""

    shape: tuple[int, ...]
    weight: int
    power: int = 0
    diagonal: bool = False
    averaged: bool = True


@dataclass(frozen=True)
class CommittedLayer:
    """A layer before a commit; `staged` are the staged weights, `past` the weights of its past in commits."""

    arrays: tuple[StagedArray, ...]
    staged: tuple[float, ...]
    weights: tuple[float, ...]
    past: tuple[float, ...]
    passes: float = 2.0
    period: float = 1.0
    roots: bool = False
    homogeneous: bool = False
    floor: float = 0.0


def _factors(*sizes: int, groups: int = 1, other: int = 0) -> tuple[StagedArray, ...]:
    lead = (groups,) if groups > 1 else ()
    return tuple(
        StagedArray((*lead, size, size), other + side, power=2 * side, diagonal=True)
        for side, size in enumerate(sizes)
    )


def _roots(groups: int, **options: Any) -> CommittedLayer:
    lead = (groups,) if groups > 1 else ()
    arrays = [StagedArray((*lead, size, size), 0, power=2, diagonal=True) for size in (9, 5)]
    arrays.append(StagedArray((groups,), 0, power=2))
    return CommittedLayer(tuple(arrays), (6.0,), (3.0,), (7.0,), roots=True, **options)


# More numbers than a chunk of 2^14; groups; EKFAC's and Sherman-Morrison's arrays; rows, which are not
# averaged, and their ranks, which have no array; roots, some of which are floored. Pasts that are kept as a
# whole, in part and not at all; weights that no pass took; a layer without a pass, one without statistics.
LAYERS = {
    "large": CommittedLayer(_factors(130, 30), (3.0, 12.0), (5.0, 20.0), (3.5, 6.0)),
    "groups": CommittedLayer(_factors(3, 6, groups=3), (4.0, 8.0), (0.0, 2.0), (2.0, 0.0)),
    "moments": CommittedLayer(
        (*_factors(7, 4), StagedArray((4, 7), 2, power=2)), (3.0, 0.0, 3.0), (1.0, 2.0, 3.0), (9.0, 9.0, 1.0)
    ),
    "diagonals": CommittedLayer(
        (*_factors(5, 6), StagedArray((5,), 2), StagedArray((6,), 3, power=2)),
        *((0.0, 0.0, 3.0, 6.0), (0.0, 0.0, 2.0, 2.0), (0.0, 0.0, 5.0, 3.0)),
    ),
    "rows": CommittedLayer(
        (StagedArray((8, 8), 0, averaged=False), StagedArray((6, 6), 1, power=2, averaged=False)),
        *((12.0, 24.0, 8.0, 6.0), (1.0, 2.0, 3.0, 4.0), (0.0, 0.0, 0.0, 0.0)),
    ),
    "roots": _roots(1, floor=0.1),
    "homogeneous": _roots(3, floor=0.4, homogeneous=True),
    "no_pass": CommittedLayer(_factors(4, 4), (0.0, 0.0), (2.0, 0.0), (1.0, 0.0), passes=0.0),
    "nothing": CommittedLayer(_factors(3, 2), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), passes=0.0, period=3.0),
}


@dataclass
class State:
    """The arrays of one layer among those of a call; `averages` has None for what is not averaged."""

    record: np.ndarray
    weights: np.ndarray
    past: np.ndarray
    staged: list[np.ndarray] = field(default_factory=list)
    averages: list[np.ndarray | None] = field(default_factory=list)


class CommitCase:
    """Layers in one call.

    Args:
        layers: the layers.
        rng: draws their arrays.
        due: whether there is to be a commit.
        judge: the handle of the judge.
    """

    name = "CommitStatistics"

    def __init__(
        self, layers: Sequence[CommittedLayer], rng: np.random.Generator, due: int = 1, judge: int = 0
    ) -> None:
        self.layers = layers
        # What the host knows of earlier commits; of each layer the answer, and the period where there is one.
        self.answers = [1] * len(layers)
        self.periods: list[int | None] = [None] * len(layers)
        self.calls = [1] * len(layers)
        self.skipped = [0] * len(layers)
        measured = normal(rng, (len(layers), 3))
        past = np.array([value for layer in layers for value in layer.past], np.float32)
        outcome = np.full(1 + len(layers), 5.0, np.float32)
        calls = np.ones(len(layers), np.float32)
        self.inputs = [np.array(due, np.int32), np.array(SCALES, np.float32), measured, past, outcome, calls]
        for layer in layers:
            self.inputs += self._draw(layer, rng)
        self.outputs = [np.zeros(1, np.float32)]
        arrays = [array for layer in layers for array in layer.arrays]
        self.attributes: dict[str, Any] = {
            "layers": "\n".join(f"layer{index}" for index in range(len(layers))),
            "arrays": [len(layer.arrays) for layer in layers],
            "weights": [len(layer.weights) for layer in layers],
            "weight_of": [array.weight for array in arrays],
            "powers": [array.power for array in arrays],
            "diagonal": [int(array.diagonal) for array in arrays],
            "averaged": [int(array.averaged) for array in arrays],
            # The first weight of a layer is that of A.
            "samples": [int(index == 0) for layer in layers for index in range(len(layer.weights))],
            "roots": [int(layer.roots) for layer in layers],
            "homogeneous": [int(layer.homogeneous) for layer in layers],
            "floors": [float(layer.floor) for layer in layers],
            "limit": LIMIT,
            "judge": judge,
        }

    def _draw(self, layer: CommittedLayer, rng: np.random.Generator) -> list[np.ndarray]:
        numbers = normal(rng, (3,)) if layer.passes else np.zeros(3, np.float32)
        record = np.array([layer.passes, layer.period, *numbers, *layer.staged], np.float32)
        drawn = [record, np.array(layer.weights, np.float32)]
        for index, array in enumerate(layer.arrays):
            traces = layer.roots and index == 2
            # Traces are sums of squares, whose means are on both sides of the floors.
            staged = abs(normal(rng, array.shape)) * 15 if traces else normal(rng, array.shape)
            drawn.append(unaligned(staged) if index == 1 else staged)
            if array.averaged:
                average = normal(rng, (2, *array.shape) if traces else array.shape)
                # Without a past it may hold anything.
                drawn.append(average if layer.weights[array.weight] > 0 else np.full_like(average, np.nan))
        return drawn

    def state(self, arrays: Sequence[np.ndarray], index: int) -> State:
        """A layer's arrays among those of a call."""
        place, past = 6, 0
        for layer in self.layers[:index]:
            place += 2 + sum(1 + array.averaged for array in layer.arrays)
            past += len(layer.weights)
        layer = self.layers[index]
        state = State(arrays[place], arrays[place + 1], arrays[3][past : past + len(layer.weights)])
        place += 2
        for array in layer.arrays:
            state.staged.append(arrays[place])
            state.averages.append(arrays[place + 1] if array.averaged else None)
            place += 1 + array.averaged
        return state

    def finite(self, index: int) -> bool:
        """Whether a layer's staged batch is finite, as far as it is looked at."""
        state = self.state(self.inputs, index)
        checked = [state.record[[PRODUCT, SCALE]]]
        for array, staged in zip(self.layers[index].arrays, state.staged):
            if state.record[STAGED_WEIGHTS + array.weight] > 0:
                checked.append(np.diagonal(staged, axis1=-2, axis2=-1) if array.diagonal else staged)
        return all(bool(np.isfinite(numbers).all()) for numbers in checked)

    def told(self, index: int) -> list[float]:
        """What the judge is to be told of a layer."""
        record = self.state(self.inputs, index).record.astype(np.float64)
        numbers = [record[PASSES], record[PERIOD], *(SCALES[1] * record[[PRODUCT, PRODUCTS, SCALE]])]
        return [*numbers, *self.inputs[2][index].astype(np.float64), float(self.finite(index)), 0.0]

    def check(self, found: Sequence[np.ndarray]) -> None:
        unfinished = False
        for index in range(len(self.layers)):
            before, after = self.state(self.inputs, index), self.state(found, index)
            for own, other in zip(after.staged, before.staged):
                np.testing.assert_array_equal(own, other)
            if not self.inputs[0]:
                self._check_kept(before, after, f"layer {index}")
                continue
            self._check_layer(index, before, after)
            refused = not self.finite(index) or self.answers[index] == 0
            unfinished = unfinished or (before.record[PASSES] > 0 and refused)
            present = float((after.weights > 0).any())
            if not present and self.answers[index] >= 0:
                # Without averages nothing is left, but the inverses still come from statistics.
                present = self.inputs[4][1 + index]
            assert found[4][1 + index] == present
            assert found[5][index] == self.calls[index]
        if self.inputs[0]:
            assert found[4][0] == self.inputs[4][0] + unfinished
        else:
            np.testing.assert_array_equal(found[4], self.inputs[4])

    def _check_kept(self, before: State, after: State, what: str) -> None:
        for name in ("record", "weights", "past"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=what)
        for own, other in zip(after.averages, before.averages):
            np.testing.assert_array_equal(own, other, err_msg=what)

    def _check_layer(self, index: int, before: State, after: State) -> None:
        layer, answer = self.layers[index], self.answers[index]
        passed = before.record[PASSES] > 0
        committed = passed and answer == 1 and self.finite(index)
        record = before.record.copy()
        if passed:
            record[[PASSES, *range(PRODUCT, len(record))]] = 0
            record[PASSES] -= self.skipped[index]
        if self.periods[index] is not None:
            record[PERIOD] = self.periods[index]
        np.testing.assert_array_equal(after.record, record)
        keeps, weights, past = self._weights(index, before, committed, passed)
        if answer < 0:
            weights, past = 0 * weights, 0 * past
        assert_within(after.weights, weights, 4 * ROUNDOFF * abs(weights), f"weights {index}")
        assert_within(after.past, past, 4 * ROUNDOFF * abs(past), f"past {index}")
        for place, array in enumerate(layer.arrays):
            average = after.averages[place]
            if average is None:
                continue
            keep = keeps[array.weight]
            if not committed or keep is None:
                np.testing.assert_array_equal(average, before.averages[place])
                continue
            old = before.averages[place].astype(np.float64) if keep else np.zeros(average.shape)
            addend = self._addend(index, before, place)
            # The scale's powers, keep, two products and a sum; with roots a dozen more.
            bound = 24 * ROUNDOFF * (abs(keep * old) + abs(addend))
            assert_within(average, keep * old + addend, bound, f"layer {index}, array {place}")

    def _weights(
        self, number: int, before: State, committed: bool, passed: bool
    ) -> tuple[list[float | None], np.ndarray, np.ndarray]:
        """How much of the past each weight keeps, None for one that stays; weights and pasts after it."""
        layer = self.layers[number]
        weights, past = before.weights.astype(np.float64), before.past.astype(np.float64)
        keeps: list[float | None] = [None] * len(weights)
        for index, staged in enumerate(before.record[STAGED_WEIGHTS:].astype(np.float64)):
            of = [array for array in layer.arrays if array.weight == index]
            averaged = any(array.averaged for array in of)
            if index == 0:
                staged = staged / self.calls[number]
            if not committed:
                weights[index] *= averaged or not passed
            elif staged > 0:
                # The past counts on while a sum is empty.
                kept = min(1.0, LIMIT / past[index]) if past[index] > 0 else 0.0
                past[index] = kept * past[index] + 1
                keep = kept if weights[index] > 0 else 0.0
                power = of[0].power if of else 0
                weights[index] = keep * weights[index] + staged if averaged else staged / SCALES[0] ** power
                keeps[index] = keep
        return keeps, weights, past

    def _addend(self, number: int, before: State, place: int) -> np.ndarray:
        """What an average gets of a batch."""
        layer = self.layers[number]
        array, staged = layer.arrays[place], before.staged[place].astype(np.float64)
        if not layer.roots:
            return SCALES[0] ** array.power * staged
        samples = float(before.record[STAGED_WEIGHTS]) / self.calls[number]
        delta = SCALES[0] ** 2 * before.staged[2].astype(np.float64) / samples
        floored = np.maximum(delta, np.float64(np.float32(layer.floor)))
        if place == 2:
            return samples * np.stack([delta, np.sqrt(floored) if layer.homogeneous else floored])
        factors = SCALES[0] ** 2 * np.sqrt(floored) / np.maximum(delta, 1e-30)
        return (factors[:, None, None] * staged.reshape(len(delta), *staged.shape[-2:])).reshape(staged.shape)


def stage(case: CommitCase, arrays: Sequence[np.ndarray], rng: np.random.Generator) -> None:
    """Writes a batch for every layer, as its passes do, into the arrays of a call."""
    for index, layer in enumerate(case.layers):
        state = case.state(arrays, index)
        passes = max(layer.passes, 1.0)
        taken = [value or 2.0 for value in layer.staged]
        state.record[[PASSES, *range(PRODUCT, len(state.record))]] = [passes, *normal(rng, (3,)), *taken]
        for place, staged in enumerate(state.staged):
            drawn = normal(rng, staged.shape)
            staged[...] = abs(drawn) * 15 if layer.roots and place == 2 else drawn


def several(layer: CommittedLayer, count: int) -> list[CommittedLayer]:
    """The same layer so many times, with other weights each."""
    return [
        dataclasses.replace(layer, staged=tuple(value + index for value in layer.staged))
        for index in range(count)
    ]


# Chunks of one block and of several, a weight with one axis, with columns alone, and with taps.
SHAPES = (((5, 7), True), ((6, 3, 2, 3), True), ((9, 2, 3), False), ((11,), True), ((130, 131), False))


class MeasureCase:
    """Gradients and weights of layers; some lie at odd addresses."""

    name = "MeasureGradients"

    def __init__(self, rng: np.random.Generator, due: int = 1, copies: int = 1) -> None:
        self.layers = SHAPES * copies
        parts = [
            (index, part)
            for index, (shape, bias) in enumerate(self.layers)
            for part in (shape, shape[:1])[: 1 + bias]
        ]
        drawn = [
            unaligned(normal(rng, part)) if index % 2 else normal(rng, part)
            for _ in (0, 1)
            for index, part in parts
        ]
        self.inputs = [np.array(due, np.int32), *drawn]
        self.outputs = [np.full((len(self.layers), 3), np.nan, np.float32)]
        self.attributes: dict[str, Any] = {
            "layers": len(self.layers),
            "biases": [int(bias) for _, bias in self.layers],
            "gradients": len(parts),
            "positions": list(range(len(parts))),
        }

    def check(self, found: Sequence[np.ndarray]) -> None:
        if not self.inputs[0]:
            assert not found[-1].any()
            return
        place = 1
        for index, (shape, bias) in enumerate(self.layers):
            count = 1 + bias
            gradients, values = (
                [array.astype(np.float64) for array in self.inputs[first : first + count]]
                for first in (place, place + self.attributes["gradients"])
            )
            place += count
            for number, parts in enumerate((gradients, values)):
                terms = np.concatenate([part.ravel() for part in _signed(parts)])
                # A thread adds up at most 64 products in float32.
                bound = 66 * ROUNDOFF * np.sum(abs(terms))
                assert_within(found[-1][index, number], np.sum(terms), bound, f"{shape} {number}")
            norm = np.sqrt(sum(np.sum(part**2) for part in gradients))
            assert_within(found[-1][index, 2], norm, 66 * ROUNDOFF * norm, f"{shape} norm")


def _signed(parts: list[np.ndarray]) -> list[np.ndarray]:
    """The terms of r^T M s: of a weight, and of a bias where there is one."""
    weight = parts[0].reshape(len(parts[0]), parts[0].shape[1] if parts[0].ndim > 1 else 1, -1)
    axes = [signs(axis, size) for axis, size in zip((ROWS, COLUMNS, TAPS), weight.shape)]
    terms = np.einsum("ock,o,c,k->ock", weight, *axes)
    return [terms, *(axes[0] * bias for bias in parts[1:])]
