"""Native forms of the operators in ``ms_kfac.ops``, and which of them run."""

from __future__ import annotations

from ms_kfac.kernels.catalogue import CATALOGUE
from ms_kfac.kernels.library import MOST_THREADS, library
from ms_kfac.kernels.operator import is_native


def status() -> str:
    """Say of every operator which form runs, and why.

    Returns:
        A text table: the library and its threads, one row an operator ("native" or "composed" of built-in
        MindSpore operators), what kernels have warned of and the last error of one.
    """
    loaded = library()
    width = max(map(len, CATALOGUE))
    if loaded.path:
        rows = [f"library {loaded.path}, {loaded.threads()} threads"]
    else:
        rows = [f"no native library: {loaded.reason}"]
    for name, function in CATALOGUE.items():
        if is_native(name):
            form = "native"
        elif function is None:
            form = "composed  no native kernel is written for it"
        else:
            form = f"composed  {loaded.reason or 'the kernel is for CPUs'}"
        rows.append(f"{name.ljust(width)}  {form}")
    rows += [f"warning: {text}" for text in loaded.warnings()]
    if loaded.last_error():
        rows.append(f"last error: {loaded.last_error()}")
    return "\n".join(rows)


def set_threads(count: int) -> None:
    """Set how many threads a native kernel uses.

    Default: the processors that this process may run on, or the environment variable ``MS_KFAC_THREADS``.
    OpenBLAS inside a kernel never uses more.

    Args:
        count: number of threads, from 1 to 1024.

    Raises:
        ValueError: if ``count`` is no such int.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_THREADS:
        raise ValueError(f"set_threads: count must be an int from 1 to {MOST_THREADS}, got {count!r}")
    library().set_threads(count)
