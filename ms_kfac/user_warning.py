"""Warnings that point at the user's own line, however deep in the package they arise."""

from __future__ import annotations

import sys
import warnings


def warn_user(text: str) -> None:
    """Warn, at the innermost line outside of this package.

    Args:
        text: what is told.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ms_kfac":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
