"""The capture check by its definition: random signs, r^T dW s of a gradient, and the size of its terms.

The signs are those of the lowest bit of MurmurHash3's 32-bit finalizer, in unbounded integers.
"""

from __future__ import annotations

import numpy as np

from tests.oracle.patches import Geometry
from tests.oracle.tkfac import Rows

ROWS, COLUMNS, TAPS = 1, 2, 3
WORD = 2**32


def sign(axis: int, index: int) -> int:
    """+1 or -1 for one index of an axis."""
    h = (index * 0x9E3779B1 + axis * 0x85EBCA6B) % WORD
    h = (h ^ (h >> 16)) * 0x85EBCA6B % WORD
    h = (h ^ (h >> 13)) * 0xC2B2AE35 % WORD
    return -1 if (h ^ (h >> 16)) % 2 else 1


def projected(weight: np.ndarray, bias: np.ndarray | None = None) -> float:
    """r^T W s of a weight (rows, columns, taps...), with the bias's share r^T b."""
    weight = np.asarray(weight, np.float64)
    taps = weight.reshape(weight.shape[0], weight.shape[1] if weight.ndim > 1 else 1, -1)
    total = 0.0
    for (o, c, k), value in np.ndenumerate(taps):
        total += sign(ROWS, o) * sign(COLUMNS, c) * sign(TAPS, k) * value
    if bias is not None:
        for o, value in enumerate(np.asarray(bias, np.float64).reshape(-1)):
            total += sign(ROWS, o) * value
    return total


def product_of(matrices: np.ndarray, columns: int, bias: bool) -> float:
    """r^T dW s from the gradient matrices (groups, d_out, columns * taps [+ 1]) of a layer."""
    groups, outputs = matrices.shape[:2]
    weight = matrices[:, :, :-1] if bias else matrices
    return projected(
        weight.reshape(groups * outputs, columns, -1),
        matrices[:, :, -1].reshape(-1) if bias else None,
    )


def size_of(groups: list[Rows], columns: int, bias: bool) -> float:
    """Sum over groups of |u| |v| with u = a^T s and v = g^T r, from every group's (a, g) as (N, T, d)."""
    total, outputs = 0.0, groups[0][1].shape[-1]
    for group, (a, g) in enumerate(groups):
        features = a.shape[-1] - bias
        taps = features // columns
        s = [sign(COLUMNS, i // taps) * sign(TAPS, i % taps) for i in range(features)] + [1] * bias
        r = [sign(ROWS, group * outputs + o) for o in range(outputs)]
        total += np.linalg.norm(a @ np.array(s)) * np.linalg.norm(g @ np.array(r))
    return total


def columns_of(geometry: Geometry | None, features: int) -> int:
    """Columns of a layer's weight: its input features, or channels of one group."""
    return features if geometry is None else geometry.in_channels // geometry.groups
