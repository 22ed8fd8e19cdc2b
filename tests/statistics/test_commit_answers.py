"""The commit and its judge: what the judge is told of a batch, and what its answers do."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops

from ms_kfac.ops.statistics.layer_statistics import PERIOD
from tests.support.commits import FACTORS, Committing, Judge, Kept, Layer, batches_of
from tests.support.forms import native_and_fallback

both_forms = native_and_fallback("commit_statistics")


@both_forms
def test_a_demoted_layer_is_emptied(mode: int, native: bool, rng: np.random.Generator) -> None:
    judge = Judge()
    layers = [Layer("a", FACTORS, 2), Layer("b", FACTORS, 2)]
    step = Committing(layers, 0.9, native, judge)
    for answer in (None, None, [[-1, 1, 1, 0], [1, 1, 1, 0]]):
        judge.answers = answer
        for layer in layers:
            layer.put(batches_of(layer, rng), [3, 3])
        step.run()
    assert layers[0].weights.asnumpy().tolist() == [0, 0]
    assert step.past.tolist()[:2] == [0, 0]
    assert step.past.tolist()[2:] == [3, 3]
    assert layers[1].weights.asnumpy().tolist() == [9, 9]
    # A layer that is emptied for good does not count as a refused batch.
    assert step.outcome == [0, 0, 1]
    # Taken up again it starts anew.
    judge.answers = None
    batches = batches_of(layers[0], rng)
    layers[0].put(batches, [5, 5])
    layers[1].put(batches_of(layers[1], rng), [3, 3])
    step.run()
    for found, batch in zip(layers[0].averages(), batches):
        np.testing.assert_array_equal(found, batch)
    assert step.outcome == [0, 1, 1]


@both_forms
def test_a_batch_that_the_judge_refuses_leaves_the_averages(
    mode: int, native: bool, rng: np.random.Generator
) -> None:
    judge = Judge()
    layer = Layer("a", FACTORS, 2)
    step = Committing([layer], 0.9, native, judge)
    layer.put(batches_of(layer, rng), [3, 3])
    step.run()
    before = [*layer.averages(), layer.weights.asnumpy().copy(), step.past.copy()]
    judge.answers = [[0, 2, 1, 3]]
    layer.put(batches_of(layer, rng), [3, 3])
    step.run()
    for found, kept in zip([*layer.averages(), layer.weights.asnumpy(), step.past], before):
        np.testing.assert_array_equal(found, kept)
    assert step.outcome == [1, 1]
    # The judge also says of the next passes how many make a batch, and how many come before.
    assert layer.record.asnumpy().tolist() == [-3, 2, *np.zeros(5)]
    # Without a pass that counts, the record stays.
    step.run()
    assert layer.record.asnumpy().tolist() == [-3, 2, *np.zeros(5)]


@both_forms
def test_the_judge_does_not_get_a_batch_with_nan_committed(mode: int, native: bool) -> None:
    layer = Layer("a", [Kept((2,))], 1)
    step = Committing([layer], 0.9, native, Judge([[1, 1, 1, 0]]))
    layer.put([[np.nan, 1.0]], [3])
    step.run()
    assert layer.averages()[0].tolist() == [0, 0]
    assert layer.weights.asnumpy().tolist() == [0]
    assert step.outcome == [1, 0]


@both_forms
def test_records_start_anew_with_the_period_of_the_answer(mode: int, native: bool) -> None:
    """Of layers with a pass; the others keep theirs, and their statistics."""
    judge = Judge()
    layers = [Layer(name, [Kept((2,))], 1) for name in "ab"]
    step = Committing(layers, 0.9, native, judge)
    for layer in layers:
        layer.put([[1.0, 2.0]], [3])
    step.run()
    judge.answers = [[1, 4, 2, 0], [-1, 1, 3, 5]]
    layers[0].put([[1.0, 2.0]], [3], passes=4)
    record = layers[1].record.asnumpy().copy()
    record[PERIOD] = 3
    ops.assign(layers[1].record, Tensor(record))
    step.run()
    found = [layer.record.asnumpy().tolist() for layer in layers]
    assert found == [[0, 4, 0, 0, 0, 0], [0, 3, 0, 0, 0, 0]]
    # Two calls per pass: further locations of the same samples.
    assert [layer.weights.asnumpy().tolist() for layer in layers] == [[3 + 1.5], [3]]
    assert step.commit.calls.asnumpy().tolist() == [2, 1]
    assert step.outcome == [0, 1, 1]


@both_forms
def test_arguments_of_the_judge(mode: int, native: bool) -> None:
    layers = [Layer(name, [Kept((2,))], 1) for name in "abc"]
    judge = Judge()
    step = Committing(layers, 0.9, native, judge)
    layers[0].put([[1.0, 2.0]], [3], passes=2, product=4.0, products=6.0, scale=16.0)
    layers[1].put([[np.inf, 2.0]], [3], product=-1.0, products=-1.0, scale=2.0)
    measured = np.arange(9.0).reshape(3, 3)
    step.run(unscale=1 / 64, expected=0.5, measured=measured)
    (told,) = judge.told
    expected = [[2, 1, 2, 3, 8, 0, 1, 2, 1], [1, 1, -0.5, -0.5, 1, 3, 4, 5, 0], [0, 1, 0, 0, 0, 6, 7, 8]]
    np.testing.assert_array_equal(told[:2, :9], expected[:2])
    # No kernel has staged these batches.
    assert not told[:, 9].any()
    # A layer without a pass has nothing that could be finite or not.
    np.testing.assert_array_equal(told[2, :8], expected[2])
    assert told.dtype == np.float32
