"""The method registry of ms_kfac, read without the slow import of ms_kfac and MindSpore."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def _registry() -> dict[str, Any]:
    package = find_spec("ms_kfac")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'ms_kfac'", name="ms_kfac")
    registry = Path(package.origin).parent / "optim" / "methods.py"
    methods: dict[str, Any] = runpy.run_path(str(registry))["METHODS"]
    return methods


METHODS = _registry()
