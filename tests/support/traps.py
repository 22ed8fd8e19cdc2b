"""Python files that tell when something imports them."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

# Own packages, and some that others look for without needing them.
MORE = {"model_zoo", "ms_kfac", "benchmarks", "tests", "cupy", "torch"}


def set_traps(folder: Path, sprung: Path) -> None:
    """Writes a file for every name of the standard library and of the installed packages.

    Args:
        folder: where to.
        sprung: the file that appears when one of them is run.
    """
    names = MORE | set(getattr(sys, "stdlib_module_names", ("argparse", "socket", "json")))
    for distribution in metadata.distributions():
        names.update(str(file).partition("/")[0].partition(".")[0] for file in distribution.files or ())
    # posix is built in: the trap itself imports nothing from the folder.
    trap = f"import posix\nposix.close(posix.open({str(sprung)!r}, posix.O_CREAT | posix.O_WRONLY))\n"
    for name in filter(str.isidentifier, names):
        (folder / f"{name}.py").write_text(trap)
    for name in ("model_zoo", "yaml", "mindspore"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(trap)
