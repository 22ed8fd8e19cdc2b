"""The libraries of native kernels in this process, one per device."""

from __future__ import annotations

from functools import cache
from typing import Literal, overload

from ms_kfac.kernels.cpu_library import CpuLibrary
from ms_kfac.kernels.cuda_library import CudaLibrary
from ms_kfac.kernels.native_library import NativeLibrary

DEVICES = ("CPU", "GPU")


@overload
def library(device: Literal["CPU"]) -> CpuLibrary: ...
@overload
def library(device: Literal["GPU"]) -> CudaLibrary: ...
@overload
def library(device: str) -> NativeLibrary: ...
@cache
def library(device: str) -> NativeLibrary:
    """Get the kernel library of a device. The first call per device loads it.

    Args:
        device: "CPU" or "GPU", as in ``ms.get_context("device_target")``.

    Returns:
        The library. If it is not usable, its ``reason`` says why.

    Raises:
        ValueError: if ``device`` has another value.
    """
    if device not in DEVICES:
        raise ValueError(f"library: device must be one of {', '.join(DEVICES)}, got {device!r}")
    return CpuLibrary() if device == "CPU" else CudaLibrary()
