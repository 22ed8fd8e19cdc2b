"""A shared library of native kernels, for whatever device: when it serves, and what it has to say."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from pathlib import Path

from ms_kfac.kernels.fingerprint import fingerprint

SWITCH = "MS_KFAC_NATIVE"
# The release whose Custom AOT interface interface/aot_extra.h mirrors.
CHECKED_WITH = "2.10"
FOLDER = Path(__file__).parent


class NativeLibrary:
    """A loaded library, or why there is none.

    Args:
        built: where the shared object is once it is built.
        sources: the folder of its sources, beside those of ``interface``.
        not_built: why it may not be there.
        rebuild: what builds it from other sources.

    Attributes:
        path: the shared object that operators name; empty where there is none.
        reason: why there is none; empty where there is one.
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
        if _sources_of(handle) != fingerprint(FOLDER / "interface", sources):
            self.reason = f"{built.name} was built from other sources: {rebuild}"
            return
        self.reason = self.prepare(handle)
        if not self.reason:
            self.handle = handle
            self.path = str(built)

    def missing(self) -> str:
        """What else the library needs and is not there; empty where nothing is missing."""
        return ""

    def prepare(self, handle: ctypes.CDLL) -> str:
        """Make the loaded library ready.

        Args:
            handle: the library, built from the present sources.

        Returns:
            Why that failed; empty where it did not.
        """
        return ""

    def settings(self) -> str:
        """How its kernels run, for people."""
        return ""

    def exports(self, function: str) -> bool:
        """Whether the loaded library has a function of that name."""
        return self.handle is not None and hasattr(self.handle, function)

    def last_error(self) -> str:
        """The text of the last operator's error."""
        return self.text("ms_kfac_last_error")

    def warnings(self) -> list[str]:
        """What kernels have warned of so far, each once."""
        return self.text("ms_kfac_warnings").splitlines()

    def refresh_layout(self, function: str) -> list[str]:
        """Names of a layer's arrays, in the order in which a kernel that refreshes inverses takes them."""
        layouts = dict(line.split(": ", 1) for line in self.text("ms_kfac_refresh_layouts").splitlines())
        return layouts[function].split(", ")

    def text(self, function: str) -> str:
        """What a function of the library writes into a buffer; empty without a library."""
        if self.handle is None:
            return ""
        read = getattr(self.handle, function)
        buffer = ctypes.create_string_buffer(read(None, 0) + 1)
        read(buffer, len(buffer))
        return buffer.value.decode()


def _refusal() -> str:
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH}=0"
    version = _version("mindspore")
    if not version.startswith(CHECKED_WITH):
        return f"kernels were checked with MindSpore {CHECKED_WITH} alone, this is {version}"
    return ""


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
