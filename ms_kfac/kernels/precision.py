"""Precision of the covariance products in the native GPU kernels."""

from __future__ import annotations

import os

VARIABLE = "MS_KFAC_PRECISION"
PRECISIONS = ("tf32", "float32", "bfloat16")

_chosen: str | None = None


def precision() -> str:
    """Get the precision for operators that are constructed from now on.

    Returns:
        "tf32", "float32" or "bfloat16": the value of :func:`set_precision`, else of the environment variable
        ``MS_KFAC_PRECISION``, else "tf32".

    Raises:
        ValueError: if the environment variable has another value.
    """
    return _checked(VARIABLE, os.environ.get(VARIABLE, PRECISIONS[0])) if _chosen is None else _chosen


def set_precision(value: str) -> None:
    """Set the precision of the covariance products in the native GPU kernels.

    The setting applies to operators constructed afterwards: call it before the optimizer is created. It
    affects only the covariance products. Accumulation and all other computations are in float32. The CPU
    kernels and the fallback ignore it and compute in float32.

    Default: the environment variable ``MS_KFAC_PRECISION``, else "tf32".

    Args:
        value: "tf32" rounds inputs to 10 mantissa bits and multiplies on tensor cores. "bfloat16" does the
            same with 7 mantissa bits. "float32" neither rounds nor uses tensor cores. GPUs below sm_80 have
            no tensor cores for tf32 and bfloat16, and always multiply in float32.

    Raises:
        ValueError: if ``value`` is not one of these strings.
    """
    global _chosen
    _chosen = _checked("set_precision: value", value)


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str) or value not in PRECISIONS:
        raise ValueError(f"{name} must be one of {', '.join(PRECISIONS)}, got {value!r}")
    return value
