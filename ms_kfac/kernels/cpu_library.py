"""The library of the CPU's kernels: OpenBLAS, and threads."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ms_kfac.kernels.native_library import FOLDER, NativeLibrary

THREADS = "MS_KFAC_THREADS"
MOST_THREADS = 1024


class CpuLibrary(NativeLibrary):
    """The library of ``cpu/``, which the installation of the package builds, with OpenBLAS behind it."""

    def __init__(self) -> None:
        self.openblas: Path | None = None
        super().__init__(
            FOLDER / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}",
            FOLDER / "cpu",
            not_built="not built: no C++ compiler was there, or it failed (pip install -v shows why)",
            rebuild="install the package again",
        )
        wanted = os.environ.get(THREADS)
        if self.path:
            self.set_threads(len(os.sched_getaffinity(0)) if wanted is None else _thread_count(wanted))

    def missing(self) -> str:
        """OpenBLAS may be."""
        self.openblas = find_openblas()
        return "the package scipy-openblas32 is not installed" if self.openblas is None else ""

    def prepare(self, handle: ctypes.CDLL) -> str:
        """Find the functions of OpenBLAS."""
        path = str(self.openblas)
        with _core_type():
            if not handle.ms_kfac_load_blas(os.fsencode(path)):
                return f"{path} lacks functions of BLAS or LAPACK"
        return ""

    def settings(self) -> str:
        """The number of threads."""
        return f"{self.threads()} threads"

    def threads(self) -> int:
        """Threads that a kernel uses; 0 without a library."""
        return 0 if self.handle is None else int(self.handle.ms_kfac_threads())

    def set_threads(self, count: int) -> None:
        """Set them; nothing to do without a library."""
        if self.handle is not None:
            self.handle.ms_kfac_set_threads(count)


def _thread_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ValueError(f"{THREADS} must be a number of threads from 1 to {MOST_THREADS}, got {text!r}")
    return int(text)


def find_openblas() -> Path | None:
    """OpenBLAS of the package ``scipy-openblas32``.

    Returns:
        The shared library; None where the package is not installed.
    """
    package = importlib.util.find_spec("scipy_openblas32")
    if package is None or package.origin is None:
        return None
    return next(iter(sorted((Path(package.origin).parent / "lib").glob("libscipy_openblas*.so*"))), None)


@contextmanager
def _core_type() -> Iterator[None]:
    # On processors newer than itself OpenBLAS takes AVX2 kernels, at half the speed of its AVX-512 ones.
    name = "OPENBLAS_CORETYPE"
    if name in os.environ or "avx512bw" not in _processor_flags():
        yield
        return
    os.environ[name] = "SKYLAKEX"
    try:
        yield
    finally:
        del os.environ[name]


def _processor_flags() -> set[str]:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return set()
    lines = information.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
