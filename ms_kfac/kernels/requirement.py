"""Refuses to run without native kernels where the environment asks for them."""

from __future__ import annotations

import os

from ms_kfac.kernels.library import library

REQUIRE = "MS_KFAC_REQUIRE_NATIVE"


def native_is_required() -> bool:
    """Whether the environment variable ``MS_KFAC_REQUIRE_NATIVE`` is 1.

    Returns:
        True for "1"; False for "0", or where it is not set.

    Raises:
        ValueError: if it has another value.
    """
    value = os.environ.get(REQUIRE, "0")
    if value not in ("0", "1"):
        raise ValueError(f"{REQUIRE} must be 0 or 1, got {value!r}")
    return value == "1"


def check_requirement() -> None:
    """Load the library of the CPU's kernels where the environment requires it.

    Raises:
        RuntimeError: if it is required and can't be used.
    """
    if native_is_required() and (reason := library("CPU").reason):
        raise RuntimeError(
            f"{REQUIRE}=1, but the CPU's native kernels are not in use ({reason}): install the package again "
            f"where g++ and scipy-openblas32 are there, or set {REQUIRE}=0 to run without them"
        )
