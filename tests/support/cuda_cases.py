"""A call of a CUDA operator and what must come of it, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.support.aot import AotLibrary

# Unit roundoff of float32.
ROUNDOFF = 2.0**-24


class Case(Protocol):
    """What a test runs and checks.

    ``inputs`` and ``outputs`` are as they are before the call; :meth:`check` is given all of them as they are
    after it.
    """

    name: str
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    attributes: dict[str, Any]

    def check(self, found: Sequence[np.ndarray]) -> None:
        """Fails where an array is not what it must be."""


class Running:
    """An operator with copies of a case's arrays, as aligned as the case's."""

    def __init__(self, library: AotLibrary, case: Case) -> None:
        self.case = case
        inputs, outputs = (
            [keep_alignment(array) for array in arrays] for arrays in (case.inputs, case.outputs)
        )
        self.arrays = [*inputs, *outputs]
        self.operator = library.operator(case.name, inputs, outputs, **case.attributes)

    def run(self) -> list[np.ndarray]:
        """Calls the operator; returns all arrays."""
        self.operator.run()
        return self.arrays

    def load(self) -> None:
        """Takes the case's inputs once more."""
        for array, own in zip(self.arrays, self.case.inputs):
            array[...] = own

    def advance(self) -> None:
        """Makes what the arrays hold the case's inputs: the beginning of another call."""
        self.case.inputs = [array.copy() for array in self.arrays[: len(self.case.inputs)]]


def run(library: AotLibrary, case: Case) -> list[np.ndarray]:
    """The arrays of a case after one call."""
    return Running(library, case).run()


def keep_alignment(array: np.ndarray) -> np.ndarray:
    """A copy whose address is as far from a multiple of 16 as the original's."""
    offset = array.ctypes.data % 16
    memory = np.empty(array.nbytes + 32, np.uint8)
    first = (offset - memory.ctypes.data) % 16
    copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def unaligned(array: np.ndarray) -> np.ndarray:
    """A copy at an address that is no multiple of 16."""
    memory = np.empty(array.nbytes + 32, np.uint8)
    first = (4 - memory.ctypes.data) % 16
    copy = memory[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def assert_within(found: np.ndarray, expected: np.ndarray, bound: np.ndarray | float, what: str = "") -> None:
    """Each entry is as near to its float64 value as its bound says."""
    assert np.isfinite(found).all(), what
    error = abs(found.astype(np.float64) - expected)
    assert (error <= bound).all(), f"{what}: {np.max(error / np.maximum(bound, 1e-300))} times the bound"
