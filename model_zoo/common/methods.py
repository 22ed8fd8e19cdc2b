"""The method registry of ms_kfac, read without the slow import of ms_kfac and MindSpore."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def run_module(path: str) -> dict[str, Any]:
    """Runs a file of ms_kfac that does not need MindSpore, without the package around it.

    Args:
        path: the file, relative to the package.

    Returns:
        Its names.

    Raises:
        ModuleNotFoundError: ms_kfac is not installed.
    """
    package = find_spec("ms_kfac")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'ms_kfac'", name="ms_kfac")
    return runpy.run_path(str(Path(package.origin).parent / path))


METHODS: dict[str, Any] = run_module("optim/methods.py")["METHODS"]
