"""Precision of matrix products in the native GPU kernels."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class _Choice:
    """Where the precision of some products comes from: an environment variable, and its values."""

    variable: str
    values: tuple[str, ...]
    default: str

    def checked(self, name: str, value: object) -> str:
        if not isinstance(value, str) or value not in self.values:
            raise ValueError(f"{name} must be one of {', '.join(self.values)}, got {value!r}")
        return value


_CHOICES = {
    "covariances": _Choice("MS_KFAC_PRECISION", ("tf32", "float32", "bfloat16"), "tf32"),
    "preconditioning": _Choice("MS_KFAC_PRECONDITIONING_PRECISION", ("float32", "tf32"), "float32"),
}
_chosen: dict[str, str] = {}


def precision(products: str) -> str:
    """Get the precision for operators that are constructed from now on.

    Args:
        products: "covariances" or "preconditioning".

    Returns:
        The value of :func:`set_precision`, else of the environment variable, else the default.

    Raises:
        ValueError: if the environment variable has another value.
    """
    choice = _CHOICES[products]
    if products in _chosen:
        return _chosen[products]
    return choice.checked(choice.variable, os.environ.get(choice.variable, choice.default))


def set_precision(value: str, *, products: str = "covariances") -> None:
    r"""Set the precision of matrix products in the native GPU kernels.

    The setting applies to operators constructed afterwards: call it before the optimizer is created.
    Accumulation and all other computations are in float32. The CPU kernels and the fallback ignore it and
    use float32.

    "covariances" are the sums of products of which factors are made, in TF32 by default. The damping that is
    added to a factor is usually far above the rounding of its sum.

    "preconditioning" are the products of gradients with inverses or eigenbases, in float32 by default. TF32
    moves a gradient by up to :math:`2^{-11}` of its largest parts, in any direction, and an inverse amplifies
    some directions by up to :math:`1/\lambda`, so the error grows as the damping shrinks. For ResNet-20 it is
    5e-4 of the update at a damping of 0.1 and 1.3e-3 at 1e-5, where the worst layer has 0.04
    (``docs/results/preconditioning_precision.txt``). SKFAC's products stay in float32: where gradients are in
    the span of its rows, Woodbury's identity amplifies the rounding of all parts by up to :math:`1/\lambda`.

    Default: the environment variable ``MS_KFAC_PRECISION``, else "tf32"; for preconditioning,
    ``MS_KFAC_PRECONDITIONING_PRECISION``, else "float32".

    Args:
        value: "tf32" rounds inputs to 10 mantissa bits and multiplies on tensor cores. "bfloat16", for
            covariances only, does the same with 7 mantissa bits. "float32" neither rounds nor uses tensor
            cores. GPUs below sm_80 have no tensor cores for tf32 and bfloat16, and multiply in float32.
        products: "covariances" or "preconditioning".

    Raises:
        ValueError: if ``products`` is neither, or if they have no such precision.
    """
    if products not in _CHOICES:
        raise ValueError(f"set_precision: products must be one of {', '.join(_CHOICES)}, got {products!r}")
    _chosen[products] = _CHOICES[products].checked("set_precision: value", value)
