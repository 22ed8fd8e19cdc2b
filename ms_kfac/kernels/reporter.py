"""Callback from kernels to Python: what in a step is NaN or infinite, and which inverses failed."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from ms_kfac.kernels.operator import present_library

# Called with the step, the findings, int64 (count, 3), and the text of a failure (interface/reports.h).
Reporter = Callable[[int, NDArray[np.int64], str], None]

PROTOTYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64), ctypes.c_char_p
)
_numbers = itertools.count(1)
_handles: weakref.WeakValueDictionary[int, ReporterHandle] = weakref.WeakValueDictionary()


class ReporterHandle:
    """Registers a reporter under a number that kernels use, for as long as this object exists.

    Args:
        reporter: the function to register. Any thread may call it.

    Attributes:
        number: the positive number of the reporter.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.number = next(_numbers)
        _handles[self.number] = self
        library = present_library().handle
        if library is not None:
            library.ms_kfac_set_reporter(_callback)


def _report(number: int, step: int, count: int, findings: Any, failure: bytes | None) -> None:
    handle = _handles.get(number)
    if handle is None:
        # The optimizer no longer exists, but its last step may still run.
        return
    found = np.zeros((0, 3), np.int64)
    if count > 0:
        found = np.ctypeslib.as_array(findings, (count, 3)).copy()
    handle.reporter(step, found, "" if failure is None else failure.decode())


# Never freed: the native libraries hold its address.
_callback = PROTOTYPE(_report)
