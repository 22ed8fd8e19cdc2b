"""The benchmark of thread overhead: which steps it times with how many threads."""

from __future__ import annotations

from benchmarks.thread_overhead import STEPS_IN_TURN, WARM_UP_STEPS, measure
from ms_kfac.kernels.library import library
from tests.support.native import needs_native


@needs_native("kronecker_refresh")
def test_threads_change_in_turn() -> None:
    kernels, before = library("CPU"), library("CPU").threads()
    seen: list[int] = []
    try:
        one, many = measure(lambda: seen.append(kernels.threads()), 2, 2 * STEPS_IN_TURN)
    finally:
        kernels.set_threads(before)
    assert seen[WARM_UP_STEPS:] == ([1] * STEPS_IN_TURN + [2] * STEPS_IN_TURN) * 2
    assert len(one) == len(many) == 2
