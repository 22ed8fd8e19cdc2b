"""Arrays 4 bytes away from an aligned address, as slices of flattened Parameters may be.

Kernels that load 16 bytes at a time check the addresses. A load that does not fit ends the process, on the
emulator and on a GPU. MindSpore aligns workspaces.
"""

from __future__ import annotations

import copy

import pytest

from benchmarks.support.aot import AotLibrary
from tests.kernels.cuda.test_commit import (  # noqa: F401
    test_every_kind_of_layer,
    test_measures,
)
from tests.kernels.cuda.test_precondition import test_updates_and_products  # noqa: F401
from tests.kernels.cuda.test_refreshes import test_every_layer  # noqa: F401
from tests.kernels.cuda.test_sherman_morrison_refresh import test_refresh_after_refresh  # noqa: F401
from tests.kernels.cuda.test_sherman_morrison_statistics import test_diagonals_and_sums  # noqa: F401
from tests.kernels.cuda.test_updates import test_momentum  # noqa: F401


@pytest.fixture
def operators(operators: AotLibrary) -> AotLibrary:
    """The operators with all arrays off alignment."""
    unaligned = copy.copy(operators)
    unaligned.offset = 4
    return unaligned
