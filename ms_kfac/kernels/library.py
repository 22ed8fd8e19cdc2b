"""The libraries of native kernels in this process, one per device."""

from __future__ import annotations

from functools import cache
from typing import Literal, overload

from ms_kfac.kernels.cpu_library import CpuLibrary
from ms_kfac.kernels.native_library import FOLDER, IN_SOURCES, NativeLibrary
from ms_kfac.kernels.precision import precision

DEVICES = ("CPU", "GPU")
BUILD = "bash scripts/build_cuda_kernels.sh"
# `pip install .` takes a library that was built in a clone along.
_WHERE = "" if IN_SOURCES else " in a clone; then pip install . there"


class CudaLibrary(NativeLibrary):
    """The library built from ``cuda/``. It contains the CUDA runtime, so it also loads without a GPU."""

    def __init__(self) -> None:
        super().__init__(
            FOLDER / "_cuda.so",
            FOLDER / "cuda",
            not_built=f"not built ({BUILD} does that{_WHERE})",
            rebuild=f"run {BUILD} again{_WHERE}",
        )

    def settings(self) -> str:
        """The GPU architectures and the precision of matrix products."""
        architectures = " ".join(f"sm_{number}" for number in self.architectures())
        covariances, preconditioning = precision("covariances"), precision("preconditioning")
        return f"{architectures}, covariances in {covariances}, preconditioning in {preconditioning}"

    def architectures(self) -> list[int]:
        """The GPU architectures with machine code in the library, such as 80 for sm_80."""
        return [int(number) for number in self.text("ms_kfac_cuda_architectures").split()]


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
