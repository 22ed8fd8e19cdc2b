"""Random numbers from a key and a count: their hash, their distribution, their streams."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter

from ms_kfac.ops.graph.counter_based_rng import CounterBasedRNG, rng_state

# A figure that is right lies within five of its standard deviations but once in 10⁶ cases.
DEVIATIONS = 5.0
COUNT = 40_000


def given(key: int, count: int = 0) -> Parameter:
    return Parameter(ms.Tensor(np.array([key, count], np.int32)), name="draws", requires_grad=False)


def hashed(x: np.ndarray) -> np.ndarray:
    """The docstring's h, in arithmetic modulo 2**64."""
    x = np.asarray(x, np.uint64)
    for _ in range(2):
        x = (x ^ (x >> np.uint64(16))) * np.uint64(0x45D9F3B) & np.uint64(0xFFFFFFFF)
    return x ^ (x >> np.uint64(16))


def test_numbers_are_those_of_the_formula(mode: int) -> None:
    """So that a checkpoint means the same draws in both modes, on every device and in later versions."""
    drawing = CounterBasedRNG(given(123_456_789, 4), stream=3)
    first, second = np.random.SeedSequence([3, 0]).generate_state(2).astype(np.uint64)
    for count in (5, 6):
        start = np.uint64(count) ^ hashed(np.uint64(123_456_789) ^ first)
        inner = hashed(np.arange(35, dtype=np.uint64) ^ hashed(start))
        expected = ((hashed(inner ^ hashed(start ^ second)) >> np.uint64(9)).astype(np.float64) + 0.5) / 2**23
        np.testing.assert_array_equal(drawing((5, 7)).asnumpy(), expected.reshape(5, 7))
    np.testing.assert_array_equal(drawing.state.asnumpy(), [123_456_789, 6])


def test_numbers_are_uniform_and_independent() -> None:
    ms.set_context(mode=ms.PYNATIVE_MODE)
    drawing, other = CounterBasedRNG(given(1)), CounterBasedRNG(given(1), stream=1)
    rows = [drawing((COUNT,)).asnumpy().astype(np.float64) for _ in range(2)]
    rows += [other((COUNT,)).asnumpy().astype(np.float64)]
    for u in rows:
        assert u.min() > 0 and u.max() < 1
        counts = np.bincount((u * 64).astype(int), minlength=64)
        chi_squared = ((counts - COUNT / 64) ** 2 / (COUNT / 64)).sum()
        assert abs(chi_squared - 63) < DEVIATIONS * np.sqrt(2 * 63)
    pairs = [(rows[0], rows[1]), (rows[0], rows[2]), (rows[0][1:], rows[0][:-1])]
    pairs += [(rows[0][step:], rows[0][:-step]) for step in (2, 16, 256, 65 * 64)]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < DEVIATIONS / np.sqrt(len(a))


def test_the_key_follows_the_seed() -> None:
    keys = []
    for seed in (3, 3, 4):
        ms.set_seed(seed)
        keys.append(rng_state("draws").asnumpy().tolist())
    assert keys[0] == keys[1] != keys[2]
    assert [count for _, count in keys] == [0, 0, 0]


def test_without_a_seed_keys_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ms, "get_seed", lambda: None)
    assert rng_state("a").asnumpy()[0] != rng_state("b").asnumpy()[0]
