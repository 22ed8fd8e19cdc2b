"""Allocation of the counters of CUDA operators while kernels are created and destroyed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotError, AotLibrary, AotOperator
from tests.support.cuda_refreshes import Refresh, kronecker
from tests.support.cuda_statistics import Layer

COUNTERS = 1 << 18


def create(library: AotLibrary, tiles: int) -> AotOperator:
    """Creates a kernel with one counter per tile of two triangles, each `tiles` tiles wide, and a few more.

    The kernel is not called, so it does not need the arrays of its sums.
    """
    layer = Layer(128 * tiles, 128 * tiles, samples=1)
    arrays = [np.zeros(layer.shapes[name], np.float32) for name in ("x", "dout")]
    attributes = layer.attributes()
    return library.operator(
        "KroneckerStatistics", arrays, [], separate=False, precision="float32", **attributes
    )


def test_kernels_give_their_counters_back(operators: AotLibrary) -> None:
    alive = []
    with pytest.raises(AotError, match="too many kernels: their counters are used up"):
        for _ in range(COUNTERS // (128 * 129) + 1):
            alive.append(create(operators, 128))
    # Adjacent ranges are merged in any order of release: at the end there is room for larger kernels.
    del alive[::2]
    alive.append(create(operators, 128))
    alive.clear()
    alive = [create(operators, 256) for _ in range(COUNTERS // (256 * 257) - 1)]
    assert len(alive) == 2


def test_counters_left_by_an_earlier_kernel_are_not_a_failure(
    operators: AotLibrary, rng: np.random.Generator
) -> None:
    layer = kronecker(5, 6, rng)
    broken = kronecker(5, 6, rng)
    broken.arrays[0][...] = np.nan
    first = Refresh(operators, "KroneckerRefresh", [broken], 0.03)
    first.run()
    first.check_untouched(0)
    del first
    second = Refresh(operators, "KroneckerRefresh", [layer], 0.03)
    second.run()
    second.check(0)
