"""A shared library of native kernels for one device: loading, checks and messages."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import mindspore as ms

from ms_kfac.kernels.fingerprint import expected_fingerprint

SWITCH = "MS_KFAC_NATIVE"
# The releases with which `scripts/run_matrix.sh` runs the kernels' tests: from the first to all of the last.
# Their Custom AOT interface is the one that interface/aot_extra.h mirrors. pyproject.toml has the same range.
OLDEST, NEWEST = "2.7.2", "2.10"
# Absolute, because a program may change its working folder before the library is loaded.
FOLDER = Path(__file__).absolute().parent
# A script that runs inside a clone imports the sources, not the package that `pip install .` built.
IN_SOURCES = (FOLDER.parents[1] / "pyproject.toml").is_file()


class NativeLibrary:
    """A loaded library, or the reason why there is none.

    Args:
        built: path of the built shared object.
        sources: the folder of its sources, in addition to ``interface``. Installed packages lack both.
        not_built: the reason to report if the shared object does not exist.
        rebuild: the instruction to report if it was built from different sources.

    Attributes:
        path: path of the shared object that operators use; empty if the library is not usable.
        reason: why the library is not usable; empty if it is.
    """

    def __init__(self, built: Path, sources: Path, *, not_built: str, rebuild: str) -> None:
        self.path = ""
        self.handle: ctypes.CDLL | None = None
        self.reason = _refusal() or ("" if built.exists() else not_built) or self.missing()
        if self.reason:
            return
        try:
            handle = ctypes.CDLL(str(built))
        except OSError as error:
            self.reason = f"{built.name} can't be loaded: {error}"
            return
        if _sources_of(handle) != expected_fingerprint(sources):
            self.reason = f"{built.name} was built from other sources: {rebuild}"
            return
        self.reason = self.prepare(handle)
        if not self.reason:
            self.handle = handle
            self.path = str(built)

    def missing(self) -> str:
        """The missing dependency of the library; empty if nothing is missing."""
        return ""

    def prepare(self, handle: ctypes.CDLL) -> str:
        """Initialize the loaded library.

        Args:
            handle: the library, built from the current sources.

        Returns:
            Why initialization failed; empty if it succeeded.
        """
        return ""

    def settings(self) -> str:
        """The settings of its kernels, as readable text."""
        return ""

    def exports(self, function: str) -> bool:
        """Whether the loaded library exports a function of this name."""
        return self.handle is not None and hasattr(self.handle, function)

    def last_error(self) -> str:
        """The message of the last operator error."""
        return self.text("ms_kfac_last_error")

    def warnings(self) -> list[str]:
        """The warnings of kernels so far, each once."""
        return self.text("ms_kfac_warnings").splitlines()

    def refresh_layout(self, function: str) -> list[str]:
        """Names of the arrays per layer, in the argument order of a refresh kernel."""
        layouts = dict(line.split(": ", 1) for line in self.text("ms_kfac_refresh_layouts").splitlines())
        return layouts[function].split(", ")

    def text(self, function: str) -> str:
        """The text that a library function writes into a buffer; empty without a library."""
        if self.handle is None:
            return ""
        read = getattr(self.handle, function)
        buffer = ctypes.create_string_buffer(read(None, 0) + 1)
        read(buffer, len(buffer))
        return buffer.value.decode()


def _refusal() -> str:
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH}=0"
    # Not that of an installed package: MindSpore may be unpacked without its metadata.
    version = str(ms.__version__)
    if not _numbers(OLDEST) <= _numbers(version) or _numbers(version)[:2] > _numbers(NEWEST):
        return f"kernels are tested with MindSpore {OLDEST} to {NEWEST}, got {version}"
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _sources_of(handle: ctypes.CDLL) -> str:
    if not hasattr(handle, "ms_kfac_sources"):
        return ""
    handle.ms_kfac_sources.restype = ctypes.c_char_p
    return str(handle.ms_kfac_sources().decode())
