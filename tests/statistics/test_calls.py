"""Calls of a layer within one backward pass, told from micro-batches, and the factors that they give."""

from __future__ import annotations

import numpy as np
import pytest

from ms_kfac.statistics.calls import CallsPerPass

# Passes of each layer, kernels that staged them, calls that Python saw, announced micro-batches, factor of
# the gradient; then calls, micro-batches, whether they could not be told apart.
CASES = {
    "one call": ([1, 1, 1], [1, 1, 1], [0, 0, 0], None, 1.0, [1, 1, 1], 1, False),
    "a shared layer": ([1, 3, 1], [0, 0, 0], [0, 0, 0], None, 1.0, [1, 3, 1], 1, False),
    "numbers without a common divisor": ([2, 3, 4], [0, 0, 0], [0, 0, 0], None, 1.0, [2, 3, 4], 1, False),
    "towers in a compiled step": ([2, 2, 4], [2, 2, 4], [0, 0, 0], None, 1.0, [2, 2, 4], 1, False),
    "one layer of the towers has a kernel": ([2, 2, 4], [0, 2, 0], [0, 0, 0], None, 1.0, [2, 2, 4], 1, False),
    "towers in PyNative mode": ([2, 2, 4], [1, 1, 1], [2, 2, 4], None, 1.0, [2, 2, 4], 1, False),
    "micro-batches in a compiled step": ([4, 4, 8], [1, 1, 2], [0, 0, 0], None, 1.0, [1, 1, 2], 4, False),
    "micro-batches in PyNative mode": ([4, 4, 8], [1, 1, 1], [1, 1, 2], None, 1.0, [1, 1, 2], 4, False),
    "towers in micro-batches": ([6, 6, 6], [2, 2, 2], [0, 0, 0], None, 1.0, [2, 2, 2], 3, False),
    "two losses, each with its head": ([2, 1, 1], [1, 1, 1], [1, 1, 1], None, 1.0, [2, 1, 1], 1, False),
    "a loop in the graph": ([5, 1, 5], [1, 1, 1], [0, 0, 0], None, 1.0, [5, 1, 5], 1, False),
    "averaged micro-batches": ([2, 2, 4], [0, 0, 0], [0, 0, 0], None, 0.5, [1, 1, 2], 2, False),
    "averaged, with unequal graphs": ([2, 2, 2], [2, 2, 2], [0, 0, 0], None, 0.5, [1, 1, 1], 2, False),
    "announced": ([4, 8, 4], [0, 0, 0], [0, 0, 0], 4, 1.0, [1, 2, 1], 4, False),
    "one pass, announced": ([2, 2, 2], [0, 0, 0], [0, 0, 0], 1, 1.0, [2, 2, 2], 1, False),
    "a layer in some micro-batches": ([4, 1, 4], [1, 1, 1], [0, 0, 0], 4, 1.0, [1, 1, 1], 4, False),
    "neither seen": ([2, 2, 2], [0, 0, 0], [0, 0, 0], None, 1.0, [1, 1, 1], 2, True),
    "clipped, neither seen": ([2, 2, 4], [0, 0, 0], [0, 0, 0], None, 0.3, [1, 1, 2], 2, True),
    "an earlier pass of another loss": ([1, 1, 1], [2, 2, 2], [2, 2, 2], None, 1.0, [1, 1, 1], 1, False),
}


@pytest.mark.parametrize("name", CASES)
def test_passes_are_calls_or_micro_batches(name: str) -> None:
    passes, kernels, seen, announced, factor, calls, micro_batches, ambiguous = CASES[name]
    found = CallsPerPass(3, lambda: seen)
    found.announced = announced
    right = np.ones(3, bool)
    assert found(np.array(passes, float), np.array(kernels, float), right, factor).tolist() == calls
    assert (found.micro_batches, found.ambiguous) == (micro_batches, ambiguous)


def test_a_step_without_some_layers_remembers_their_calls() -> None:
    """Each layer has steps of its own for its statistics: the first commit knew all of them."""
    found = CallsPerPass(3)
    nothing, some = np.zeros(3), np.array([False, True, False])
    found(np.array([1.0, 2.0, 1.0]), nothing, np.ones(3, bool), 1.0)
    assert found(np.array([0.0, 2.0, 0.0]), nothing, some, 1.0).tolist() == [1, 2, 1]
    assert not found.ambiguous
    assert found(np.array([0.0, 6.0, 0.0]), nothing, some, 1.0).tolist() == [1, 2, 1]
    assert found.micro_batches == 3
    found(nothing, nothing, np.zeros(3, bool), 1.0)
    assert found.calls.tolist() == [1, 2, 1]
