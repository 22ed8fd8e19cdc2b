"""Warnings that point at the user's line of code, not at a line inside the package."""

from __future__ import annotations

import sys
import warnings


def warn_user(text: str) -> None:
    """Issue a warning at the innermost stack frame outside this package.

    Args:
        text: the warning message.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ms_kfac":
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)
