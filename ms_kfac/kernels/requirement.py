"""Check that native kernels are available if the environment requires them."""

from __future__ import annotations

import os

from ms_kfac.kernels.library import library

REQUIRE = "MS_KFAC_REQUIRE_NATIVE"


def native_is_required() -> bool:
    """Whether the environment variable ``MS_KFAC_REQUIRE_NATIVE`` is 1.

    Returns:
        True for "1"; False for "0" or if it is not set.

    Raises:
        ValueError: if it has another value.
    """
    value = os.environ.get(REQUIRE, "0")
    if value not in ("0", "1"):
        raise ValueError(f"{REQUIRE} must be 0 or 1, got {value!r}")
    return value == "1"


def check_requirement() -> None:
    """Load the library of CPU kernels if the environment requires it.

    Raises:
        RuntimeError: if the library is required but not usable.
    """
    if native_is_required() and (reason := library("CPU").reason):
        raise RuntimeError(
            f"{REQUIRE}=1, but the CPU's native kernels are not in use ({reason}): reinstall the package "
            f"with g++ and scipy-openblas32 available, or set {REQUIRE}=0 to run without them"
        )
