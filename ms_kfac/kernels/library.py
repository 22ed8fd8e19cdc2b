"""The native kernels of the CPU: one shared library, loaded once a process, with OpenBLAS behind it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ms_kfac.kernels.fingerprint import fingerprint

SWITCH = "MS_KFAC_NATIVE"
THREADS = "MS_KFAC_THREADS"
MOST_THREADS = 1024
# The release whose Custom AOT interface interface/aot_extra.h mirrors.
CHECKED_WITH = "2.10"


class Library:
    """The loaded library, or why there is none.

    Attributes:
        path: the shared object that operators name; empty where there is none.
        reason: why there is none; empty where there is one.
    """

    def __init__(self) -> None:
        self.path = ""
        self.reason = ""
        self._handle: ctypes.CDLL | None = None
        if os.environ.get(SWITCH, "1") == "0":
            self.reason = f"{SWITCH}=0"
            return
        version = _version("mindspore")
        if not version.startswith(CHECKED_WITH):
            self.reason = f"kernels were checked with MindSpore {CHECKED_WITH} alone, this is {version}"
            return
        folder = Path(__file__).parent
        built = folder / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
        if not built.exists():
            self.reason = "not built: no C++ compiler was there, or it failed (pip install -v shows why)"
            return
        openblas = find_openblas()
        if openblas is None:
            self.reason = "the package scipy-openblas32 is not installed"
            return
        try:
            handle = ctypes.CDLL(str(built))
        except OSError as error:
            self.reason = f"{built.name} can't be loaded: {error}"
            return
        if _sources_of(handle) != fingerprint(folder / "interface", folder / "cpu"):
            self.reason = f"{built.name} was built from other sources: install the package again"
            return
        with _core_type():
            if not handle.ms_kfac_load_blas(os.fsencode(openblas)):
                self.reason = f"{openblas} lacks functions of BLAS or LAPACK"
                return
        self._handle = handle
        self.path = str(built)
        wanted = os.environ.get(THREADS)
        self.set_threads(len(os.sched_getaffinity(0)) if wanted is None else _thread_count(wanted))

    def threads(self) -> int:
        """Threads that a kernel uses; 0 without a library."""
        return 0 if self._handle is None else int(self._handle.ms_kfac_threads())

    def set_threads(self, count: int) -> None:
        """Set them; nothing to do without a library."""
        if self._handle is not None:
            self._handle.ms_kfac_set_threads(count)

    def last_error(self) -> str:
        """The text of the last operator's error."""
        return self._text("ms_kfac_last_error")

    def warnings(self) -> list[str]:
        """What kernels have warned of so far, each once."""
        return self._text("ms_kfac_warnings").splitlines()

    def _text(self, function: str) -> str:
        if self._handle is None:
            return ""
        read = getattr(self._handle, function)
        buffer = ctypes.create_string_buffer(read(None, 0) + 1)
        read(buffer, len(buffer))
        return buffer.value.decode()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of no known version"


def _sources_of(handle: ctypes.CDLL) -> str:
    if not hasattr(handle, "ms_kfac_sources"):
        return ""
    handle.ms_kfac_sources.restype = ctypes.c_char_p
    return str(handle.ms_kfac_sources().decode())


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


@cache
def library() -> Library:
    """The library of this process, loaded at the first call.

    Returns:
        The library, or one that says why there is none.
    """
    return Library()
