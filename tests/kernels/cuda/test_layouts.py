"""The libraries of both devices take the arrays of a refresh in the same order."""

from __future__ import annotations

import ctypes

from benchmarks.support.aot import AotLibrary
from ms_kfac.kernels.library import library
from tests.support.native import needs_native


@needs_native("kronecker_refresh")
def test_both_libraries_take_arrays_in_one_order(operators: AotLibrary) -> None:
    layouts = []
    for handle in (operators.library, ctypes.CDLL(library("CPU").path)):
        buffer = ctypes.create_string_buffer(handle.ms_kfac_refresh_layouts(None, 0) + 1)
        handle.ms_kfac_refresh_layouts(buffer, len(buffer))
        layouts.append(buffer.value)
    assert layouts[0] == layouts[1] != b""
