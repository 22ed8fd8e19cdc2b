"""Native kernels for the operators in ``ms_kfac.ops``, and their status."""

from __future__ import annotations

import mindspore as ms

from ms_kfac.kernels.cpu_library import MOST_THREADS
from ms_kfac.kernels.library import DEVICES, library
from ms_kfac.kernels.operator import fallback_reason
from ms_kfac.kernels.precision import set_precision
from ms_kfac.kernels.registry import REGISTRY

__all__ = ["set_precision", "set_threads", "status"]


def status() -> str:
    """Report which implementation of each operator runs on the current device target, and why.

    Returns:
        A text table.

        - One row per device: its library; the current device comes first.
        - One row per operator: "native", or "fallback" (composed of MindSpore operators) with the reason.
        - The warnings of kernels, and the last error of each library.
    """
    present = ms.get_context("device_target")
    devices = sorted({*DEVICES, present}, key=lambda device: (device != present, device))
    rows = [f"{device}{' (in use)' if device == present else ''}: {_library(device)}" for device in devices]
    width = max(map(len, REGISTRY))
    for name in REGISTRY:
        reason = fallback_reason(name, present)
        rows.append(f"{name.ljust(width)}  " + (f"fallback  {reason}" if reason else "native"))
    for device in DEVICES:
        rows += [f"warning: {text}" for text in library(device).warnings()]
    for device in DEVICES:
        if error := library(device).last_error():
            rows.append(f"last error: {error}")
    return "\n".join(rows)


def _library(device: str) -> str:
    if device not in DEVICES:
        return "no native library: none is written for it"
    own = library(device)
    return f"library {own.path}, {own.settings()}" if own.path else f"no native library: {own.reason}"


def set_threads(count: int) -> None:
    """Set the number of threads of the native CPU kernels.

    Default: the environment variable ``MS_KFAC_THREADS``, else the number of processors that this process may
    run on. OpenBLAS inside a kernel never uses more threads.

    Args:
        count: number of threads, from 1 to 1024.

    Raises:
        ValueError: if ``count`` is not an int in this range.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_THREADS:
        raise ValueError(f"set_threads: count must be an int from 1 to {MOST_THREADS}, got {count!r}")
    library("CPU").set_threads(count)
