"""Tests interleaved calls and the summary of their times."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gpu.timing import alternate, paired_ratios, quartiles, summary


class ScriptedClock:
    """Reports k milliseconds for the k-th timed call."""

    def __init__(self) -> None:
        self.timed = 0
        self.prepared: list = []

    def prepare(self, call) -> None:
        self.prepared.append(call)

    def milliseconds(self, call) -> float:
        call()
        self.timed += 1
        return float(self.timed)


def test_calls_take_turns_back_and_forth_after_the_warm_up() -> None:
    order: list[str] = []
    clock = ScriptedClock()
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = alternate(calls, clock, rounds=2, warm_up=2)
    assert "".join(order) == "abcabc" + "abccba"
    assert clock.prepared == list(calls.values())
    assert times == {"a": [7, 12], "b": [8, 11], "c": [9, 10]}


def test_ratios_are_taken_round_by_round() -> None:
    # The ratio is 2 in every round, although the machine became ten times slower.
    times = {"kernel": [1.0, 10.0, 1.0], "torch": [2.0, 20.0, 2.0]}
    assert paired_ratios(times, "kernel") == {"torch": [2.0, 2.0, 2.0]}


def test_quartiles_and_raw_times(rng: np.random.Generator) -> None:
    values = rng.permutation(np.arange(9.0)).tolist()
    assert quartiles(values) == [2.0, 4.0, 6.0]
    assert summary({"a": values})["a"] == {"quartiles_ms": [2.0, 4.0, 6.0], "raw_ms": pytest.approx(values)}
