"""The commit of staged batches, as a kernel and as the fallback, against float64 rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mindspore import Tensor, ops

from ms_kfac.ops.statistics.layer_statistics import PERIOD, PRODUCT, PRODUCTS, SCALE, STAGED_WEIGHTS
from ms_kfac.statistics.commit import RootAverage
from tests.oracle.commit import Average, root_batch
from tests.oracle.kfac import MovingAverage
from tests.support.commits import FACTORS, Committing, Kept, Layer, batches_of
from tests.support.forms import native_and_fallback

both_forms = native_and_fallback("commit_statistics")
# Besides: a diagonal next to its factor, of the same weight.
WITH_DIAGONAL = (*FACTORS, Kept((5,), 1, 2))


def assert_close(found: Any, expected: Any) -> None:
    # Some tens of roundings of numbers as large as the largest.
    expected = np.asarray(expected, np.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * max(np.abs(expected).max(), 1e-30))


@both_forms
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.93, 0.95])
def test_batches_of_equal_size_follow_the_paper(mode: int, native: bool, decay: float) -> None:
    layer = Layer("a", [Kept((3,))], 1)
    step, expected = Committing([layer], decay, native), MovingAverage(decay)
    rng = np.random.default_rng(0)
    largest = 0.0
    for commit in range(30):
        batch = rng.standard_normal(3).astype(np.float32)
        expected.add(batch.astype(np.float64))
        layer.put([7 * batch], [7])
        step.run()
        found = layer.averages()[0] / layer.weights.asnumpy()[0]
        if commit == 0:
            np.testing.assert_allclose(found, batch, rtol=1e-6)
        largest = max(largest, float(np.abs(batch).max()))
        np.testing.assert_allclose(found, expected.value, rtol=0, atol=1.2e-7 * 30 * largest)


@both_forms
def test_batches_count_by_their_weights(mode: int, native: bool, rng: np.random.Generator) -> None:
    layers = [Layer("a", WITH_DIAGONAL, 2), Layer("b", FACTORS, 2)]
    step = Committing(layers, 0.8, native)
    expected = [[Average(0.8), Average(0.8)] for _ in layers]
    for _ in range(8):
        for layer, averages in zip(layers, expected):
            batches, weights = batches_of(layer, rng), rng.integers(1, 9, 2).tolist()
            layer.put(batches, weights)
            for weight, average in enumerate(averages):
                taken = [b for b, s in zip(batches, layer.statistics) if s.weight == weight]
                average.add(taken, weights[weight])
        step.run()
        for layer, averages in zip(layers, expected):
            for weight, average in enumerate(averages):
                taken = [a for a, s in zip(layer.averages(), layer.statistics) if s.weight == weight]
                for found, total in zip(taken, average.totals):
                    assert_close(found, total)
            assert_close(layer.weights.asnumpy(), [average.weight for average in averages])
        assert_close(step.past, [average.past for averages in expected for average in averages])
    assert step.outcome == [0, 1, 1]


@both_forms
def test_a_statistic_that_was_not_taken_keeps_its_past(
    mode: int, native: bool, rng: np.random.Generator
) -> None:
    """A at every step, G at every third; in between G's staged arrays hold whatever they hold."""
    layer = Layer("a", FACTORS, 2)
    step, averages = Committing([layer], 0.6, native), [Average(0.6), Average(0.6)]
    for number in range(7):
        batches, weights = batches_of(layer, rng), [4.0, 5.0]
        if number % 3 > 0:
            batches[1], weights[1] = np.full_like(batches[1], np.nan), 0.0
        layer.put(batches, weights)
        before = layer.averages()[1]
        step.run()
        for index, average in enumerate(averages):
            if weights[index]:
                average.add([batches[index]], weights[index])
            assert_close(layer.averages()[index], average.totals[0])
        if number % 3 > 0:
            np.testing.assert_array_equal(layer.averages()[1], before)
        assert_close(layer.weights.asnumpy(), [average.weight for average in averages])
        assert_close(step.past, [average.past for average in averages])
    assert step.outcome == [0, 1]


# Where a batch breaks: an array of WITH_DIAGONAL at an index, or a number of the record.
BROKEN: list[tuple[Any, ...]] = [
    (0, (2, 2)),
    (1, (1, 3, 3)),
    (1, (0, 0, 0)),
    (2, (4,)),
    ("product",),
    ("scale",),
]


@both_forms
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_batch_that_is_not_finite_is_refused(
    mode: int, native: bool, value: float, rng: np.random.Generator
) -> None:
    """Nothing of it remains; later batches are committed as if it had never been. Other layers go on."""
    layers = [Layer("broken", WITH_DIAGONAL, 2), Layer("whole", FACTORS, 2)]
    step = Committing(layers, 0.9, native)
    averages = [[Average(0.9), Average(0.9)] for _ in layers]

    def commit(place: tuple[Any, ...] | None) -> None:
        for index, layer in enumerate(layers):
            batches, options = batches_of(layer, rng), {}
            if index == 0 and place is not None:
                if isinstance(place[0], str):
                    options[place[0]] = value
                else:
                    batches[place[0]][place[1]] = value
            layer.put(batches, [3, 6], **options)
            if index == 1 or place is None:
                averages[index][0].add([batches[0]], 3)
                averages[index][1].add(batches[1:], 6)
        step.run()

    commit(None)
    for number, place in enumerate(BROKEN):
        before = [*layers[0].averages(), layers[0].weights.asnumpy().copy(), step.past[:2].copy()]
        commit(place)
        after = [*layers[0].averages(), layers[0].weights.asnumpy(), step.past[:2]]
        for found, kept in zip(after, before):
            np.testing.assert_array_equal(found, kept, err_msg=str(place))
        assert step.outcome == [1 + number, 1, 1]
        assert not layers[0].record.asnumpy()[PRODUCT:].any()
        assert step.judge.told[-1][:, 8].tolist() == [0, 1]
    commit(None)
    for layer, (first, second) in zip(layers, averages):
        found = layer.averages()
        for array, total in zip(found, [*first.totals, *second.totals]):
            assert_close(array, total)
    assert step.outcome == [len(BROKEN), 1, 1]


@both_forms
def test_refused_batches_are_counted_by_steps(mode: int, native: bool) -> None:
    layers = [Layer(name, [Kept((2,))], 1) for name in "abc"]
    step = Committing(layers, 0.9, native)
    for layer, number in zip(layers, (np.nan, 1.0, np.inf)):
        layer.put([[number, 1.0]], [1])
    step.run()
    assert step.outcome == [1, 0, 1, 0]


@both_forms
def test_products_of_earlier_passes_may_be_anything(mode: int, native: bool) -> None:
    """An overflowed pass whose step was dropped: the pass that replaced it is whole."""
    layer = Layer("a", [Kept((2,))], 1)
    step = Committing([layer], 0.9, native)
    layer.put([[1.0, 2.0]], [1], passes=2, products=np.nan)
    step.run()
    assert step.outcome == [0, 1]
    np.testing.assert_array_equal(layer.averages()[0], [1.0, 2.0])


@both_forms
def test_nan_in_an_average_without_weight_is_overwritten(mode: int, native: bool) -> None:
    layer = Layer("a", FACTORS, 2)
    step = Committing([layer], 0.9, native)
    for statistic in layer.statistics:
        ops.assign(statistic.average, Tensor(np.full(statistic.batch.shape, np.nan, np.float32)))
    batches = [np.full(s.batch.shape, 2.0) for s in layer.statistics]
    layer.put(batches, [4, 4])
    step.run()
    for found, batch in zip(layer.averages(), batches):
        np.testing.assert_array_equal(found, batch)
    assert step.past.tolist() == [1, 1]


@both_forms
def test_cleared_sums_restart_while_other_weights_continue(
    mode: int, native: bool, rng: np.random.Generator
) -> None:
    """A refresh sets a weight to zero (EKFAC's s, SMKFAC's full sums): W stays that of all batches so far."""
    layer = Layer("a", FACTORS, 2)
    step, averages = Committing([layer], 0.75, native), [Average(0.75), Average(0.75)]
    for number in range(9):
        if number in (3, 6):
            ops.assign(layer.weights, layer.weights * Tensor(np.array([1, 0], np.float32)))
            averages[1].clear()
        batches = batches_of(layer, rng)
        layer.put(batches, [3, 4])
        step.run()
        for index, average in enumerate(averages):
            average.add([batches[index]], [3, 4][index])
            assert_close(layer.averages()[index], average.totals[0])
        assert_close(layer.weights.asnumpy(), [average.weight for average in averages])
        assert_close(step.past, [average.past for average in averages])
    assert step.past[0] == step.past[1]


@both_forms
def test_the_loss_scale_is_undone_by_powers(mode: int, native: bool, rng: np.random.Generator) -> None:
    """A scale that changes from step to step leaves no trace in the averages."""
    layer = Layer("a", [Kept((3,), 0, 0), Kept((3,), 1, 1), Kept((3,), 2, 2)], 3)
    step = Committing([layer], 0.7, native)
    averages = [Average(0.7) for _ in range(3)]
    for scale in (1.0, 1024.0, 2.0**16, 0.25):
        batches = batches_of(layer, rng)
        layer.put([batch * scale**power for power, batch in enumerate(batches)], [2, 2, 2])
        for batch, average in zip(batches, averages):
            average.add([batch], 2)
        step.run(unscale=1 / scale)
        for found, average in zip(layer.averages(), averages):
            assert_close(found, average.totals[0])


@both_forms
@pytest.mark.parametrize("homogeneous", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_roots(mode: int, native: bool, homogeneous: bool, groups: int, rng: np.random.Generator) -> None:
    """TKFAC's average of its paper, with traces on both sides of the floor, and one of zero."""
    floor, scale = 1.2, 512.0
    leading = (groups,) if groups > 1 else ()
    traces = (groups, 1, 1) if groups > 1 else ()
    kept = [
        Kept((*leading, 3, 3), power=2, symmetric=True),
        Kept((*leading, 2, 2), power=2, symmetric=True),
        Kept(traces, power=2, average_shape=(2, *traces)),
    ]
    layer = Layer("a", kept, 1, RootAverage(floor, homogeneous))
    step, average = Committing([layer], 0.75, native), Average(0.75)
    for number in range(5):
        weight = float(rng.integers(2, 6))
        factors = []
        for dim in (3, 2):
            rows = rng.standard_normal((*leading, dim, dim))
            factor = rows @ np.swapaxes(rows, -1, -2)
            factors.append(factor / np.trace(factor, axis1=-2, axis2=-1)[..., None, None])
        delta = np.asarray(rng.uniform(0.1, 3.0, traces) * weight)
        if number == 3:
            # A batch without signal in the first group.
            delta = np.where(np.arange(groups).reshape(traces or ()) == 0, 0.0, delta)
        Phi, Psi = (factor * delta for factor in factors)
        layer.put([Phi * scale**2, Psi * scale**2, delta * scale**2], [weight])
        average.add(root_batch(Phi, Psi, delta, weight, floor, homogeneous), weight)
        step.run(unscale=1 / scale)
        for found, total in zip(layer.averages(), average.totals):
            assert_close(found, total)
        assert_close(layer.weights.asnumpy(), [average.weight])


# SKFAC: rows of A and of G, which stay as they are staged, and two ranks, which belong to no array.
ROWS = (Kept((3, 3), 0, 0, averaged=False), Kept((2, 2), 1, 2, averaged=False))


@both_forms
def test_what_is_not_averaged_has_the_weights_of_its_last_batch(mode: int, native: bool) -> None:
    """The rows carry the loss scale, which their number takes instead: a factor is rows^T rows / number."""
    layer = Layer("a", ROWS, 4)
    step = Committing([layer], 0.9, native)
    for rows in (4.0, 6.0):
        layer.put([np.ones((3, 3)), np.ones((2, 2))], [rows, rows + 1, 3, 2])
        step.run(unscale=1 / 8)
        np.testing.assert_allclose(layer.weights.asnumpy(), [rows, (rows + 1) * 64, 3, 2], rtol=1e-6)
        assert step.outcome == [0, 1]
    # A alone: G's rows are those of the last batch still.
    layer.put([np.ones((3, 3)), None], [5, 0, 3, 0])
    step.run(unscale=1 / 8)
    np.testing.assert_allclose(layer.weights.asnumpy(), [5, 7 * 64, 3, 2], rtol=1e-6)
    # Refused: the values staged instead of the last batch are no statistic, and neither is one factor alone.
    layer.put([np.full((3, 3), np.nan), None], [5, 0, 3, 0])
    step.run()
    assert not layer.weights.asnumpy().any()
    # The inverses still come from statistics.
    assert step.outcome == [1, 1]
    layer.put([np.ones((3, 3)), np.ones((2, 2))], [4, 4, 3, 2])
    step.run()
    assert layer.weights.asnumpy().tolist() == [4, 4, 3, 2]


@both_forms
def test_statistics_that_are_not_due_do_not_change(mode: int, native: bool, rng: np.random.Generator) -> None:
    layer = Layer("a", FACTORS, 2)
    step = Committing([layer], 0.9, native)
    batches = batches_of(layer, rng)
    layer.put(batches, [3, 3])
    record = layer.record.asnumpy().copy()
    step.run(due=0)
    assert step.outcome == [0, 0]
    assert not step.judge.told
    assert not any(array.any() for array in layer.averages())
    np.testing.assert_array_equal(layer.record.asnumpy(), record)
    step.run(due=1)
    for found, batch in zip(layer.averages(), batches):
        np.testing.assert_array_equal(found, batch)
    assert step.outcome == [0, 1]


def test_a_record_begins_where_its_constants_say() -> None:
    assert (PERIOD, PRODUCT, PRODUCTS, SCALE, STAGED_WEIGHTS) == (1, 2, 3, 4, 5)


@both_forms
def test_without_layers_nothing_is_committed(mode: int, native: bool) -> None:
    step = Committing([], 0.9, native)
    step.run(measured=np.zeros((1, 3)))
    assert step.outcome == [0]
