"""In which precision the GPU's kernels multiply for covariances."""

from __future__ import annotations

import os

VARIABLE = "MS_KFAC_PRECISION"
PRECISIONS = ("tf32", "float32", "bfloat16")

_chosen: str | None = None


def precision() -> str:
    """The precision that operators are constructed with from now on.

    Returns:
        "tf32", "float32" or "bfloat16": what :func:`set_precision` chose, else what the environment variable
        ``MS_KFAC_PRECISION`` says, else "tf32".

    Raises:
        ValueError: if the variable says something else.
    """
    return _checked(VARIABLE, os.environ.get(VARIABLE, PRECISIONS[0])) if _chosen is None else _chosen


def set_precision(value: str) -> None:
    """Set in which precision the GPU's kernels multiply for covariances.

    It holds for operators that are constructed afterwards: set it before the optimizer is made. Sums are
    float32 whatever it is, and so is everything but the products of covariances. The CPU's kernels and the
    fallback compute in float32 and leave it aside.

    Default: "tf32", or the environment variable ``MS_KFAC_PRECISION``.

    Args:
        value: "tf32": numbers are rounded to 10 bits of mantissa, and multiplied on tensor cores. "bfloat16":
            the same with 7 bits. "float32": neither rounded nor on tensor cores. GPUs below sm_80 have
            tensor cores for neither type, and multiply in float32 whatever is set.

    Raises:
        ValueError: if ``value`` is no such string.
    """
    global _chosen
    _chosen = _checked("set_precision: value", value)


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str) or value not in PRECISIONS:
        raise ValueError(f"{name} must be one of {', '.join(PRECISIONS)}, got {value!r}")
    return value
