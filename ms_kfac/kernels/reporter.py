"""Callback from kernels to Python: what in a step is NaN or infinite, and which inverses failed."""

from __future__ import annotations

import ctypes
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from ms_kfac.kernels.callbacks import Handle, registered

# Called with the step, the findings, int64 (count, 3), and the text of a failure (interface/reports.h).
Reporter = Callable[[int, NDArray[np.int64], str], None]

PROTOTYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64), ctypes.c_char_p
)


@PROTOTYPE
def _report(number: int, step: int, count: int, findings: Any, failure: bytes | None) -> None:
    reporter = registered(number)
    if reporter is not None:
        found = np.zeros((0, 3), np.int64)
        if count > 0:
            found = np.ctypeslib.as_array(findings, (count, 3)).copy()
        reporter(step, found, "" if failure is None else failure.decode())


def register_reporter(reporter: Reporter) -> Handle[Reporter]:
    """Register a reporter with the kernels of the current device.

    Args:
        reporter: the function to register.

    Returns:
        The handle. It must exist as long as the kernels exist.
    """
    return Handle(reporter, "ms_kfac_set_reporter", _report)
