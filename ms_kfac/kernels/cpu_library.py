"""The library of native CPU kernels, with OpenBLAS and threads."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ms_kfac.kernels.native_library import FOLDER, IN_SOURCES, NativeLibrary
from ms_kfac.kernels.processor import processor_flags

THREADS = "MS_KFAC_THREADS"
MOST_THREADS = 1024
_OPENBLAS = "scipy_openblas32/lib/libscipy_openblas*.so*"
# pip keeps a wheel that was built without a compiler, and would install it again.
_AGAIN = (
    "pip install -e . builds it (-v: why g++ failed)"
    if IN_SOURCES
    else "with g++, pip install --force-reinstall --no-deps --no-cache-dir builds it (-v: why g++ failed)"
)
_WHERE = f" in {FOLDER.parents[1]}, the sources that Python imports here" if IN_SOURCES else ""


class CpuLibrary(NativeLibrary):
    """The library built from ``cpu/`` when the package is installed. It calls OpenBLAS."""

    def __init__(self) -> None:
        self.openblas: Path | None = None
        super().__init__(
            FOLDER / "_cpu.so",
            FOLDER / "cpu",
            not_built=f"not built{_WHERE}: {_AGAIN}",
            rebuild=_AGAIN,
        )
        wanted = os.environ.get(THREADS)
        if self.path:
            self.set_threads(len(os.sched_getaffinity(0)) if wanted is None else _thread_count(wanted))

    def missing(self) -> str:
        """Report that OpenBLAS is missing, if it is."""
        self.openblas = find_openblas()
        return "the package scipy-openblas32 is not installed" if self.openblas is None else ""

    def prepare(self, handle: ctypes.CDLL) -> str:
        """Load the OpenBLAS functions."""
        path = str(self.openblas)
        with _openblas_settings():
            if not handle.ms_kfac_load_blas(os.fsencode(path)):
                return f"{path} lacks functions of BLAS or LAPACK"
        return ""

    def settings(self) -> str:
        """The number of threads."""
        return f"{self.threads()} threads"

    def threads(self) -> int:
        """The number of threads per kernel; 0 without a library."""
        return 0 if self.handle is None else int(self.handle.ms_kfac_threads())

    def set_threads(self, count: int) -> None:
        """Set the number of threads per kernel. Does nothing without a library."""
        if self.handle is not None:
            self.handle.ms_kfac_set_threads(count)


def _thread_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ValueError(f"{THREADS} must be an int from 1 to {MOST_THREADS}, got {text!r}")
    return int(text)


def find_openblas() -> Path | None:
    """Find the OpenBLAS library of the package ``scipy-openblas32``.

    Its list of installed files names the library, so that a mere folder of the package's name, such as one in
    the working folder, is not taken for it.

    Returns:
        The path of the shared library; None if the package is not installed or contains no library.
    """
    try:
        files = importlib.metadata.files("scipy-openblas32") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())).absolute() for file in files if file.match(_OPENBLAS))
    return next((path for path in sorted(found) if path.is_file()), None)


@contextmanager
def _openblas_settings() -> Iterator[None]:
    # OpenBLAS reads its settings while it loads. Those that are already set are kept.
    settings = {
        # Its threads wait for work in a loop of 2**28 cycles before they sleep, and take a processor from the
        # operators that follow a kernel: 227 ms instead of 160 per step of SKFAC on the zoo's convnet. With
        # 2**18 cycles, some 0.1 ms, they are still awake for the next product of the same kernel.
        "OPENBLAS_THREAD_TIMEOUT": "18",
    }
    if "avx512bw" in processor_flags():
        # On processors newer than its release, OpenBLAS selects AVX2 kernels, at half the speed of AVX-512.
        settings["OPENBLAS_CORETYPE"] = "SKYLAKEX"
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
