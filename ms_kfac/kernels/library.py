"""The libraries of native kernels of this process, one a device."""

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
    """The library of a device's kernels, loaded at the first call for it.

    Args:
        device: "CPU" or "GPU", as ``ms.get_context("device_target")`` has it.

    Returns:
        The library, or one that says why there is none.

    Raises:
        ValueError: if ``device`` is another one.
    """
    if device not in DEVICES:
        raise ValueError(f"library: device must be one of {', '.join(DEVICES)}, got {device!r}")
    return CpuLibrary() if device == "CPU" else CudaLibrary()
