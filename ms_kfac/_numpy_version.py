"""Refuse NumPy 2 when the package is imported.

MindSpore declares no upper bound. With NumPy 2 it imports, and its first operator on a number then raises a
SystemError that names neither. ``MS_KFAC_ALLOW_NUMPY_2=1`` is for programs that take care of that.
"""

from __future__ import annotations

import os
import shlex
import sys

import numpy as np

if int(np.__version__.partition(".")[0]) >= 2 and os.environ.get("MS_KFAC_ALLOW_NUMPY_2") != "1":
    raise ImportError(
        f"numpy: the version must be below 2, got {np.__version__}, with which MindSpore's operators fail: "
        f"{shlex.quote(sys.executable)} -m pip install 'numpy<2' mends it"
    )
