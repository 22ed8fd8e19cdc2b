r"""Random signs r and s of the capture check (:mod:`ms_kfac.ops.statistics.capture_check`).

For a weight gradient dW with rows o (axis 0), columns c (axis 1) and taps k (all further axes, flattened)

.. math::
    r^{\top} dW\, s = \sum_{o,c,k} r_o\, s_c\, t_k\, dW_{o,c,k} + \sum_o r_o\, db_o

Each sign is a hash of its index, so the signs need no state. The hash is the same in Python, C++ and CUDA
(``kernels/interface/signs.h``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS, TAPS = 1, 2, 3


def signs(axis: int, count: int) -> NDArray[np.float32]:
    """Signs +1 or -1 for each index of an axis, from the lowest bit of MurmurHash3's finalizer.

    Args:
        axis: ``ROWS``, ``COLUMNS`` or ``TAPS``.
        count: number of indices.

    Returns:
        float32, shape (count,).
    """
    bits = np.uint64(0xFFFFFFFF)
    hashed = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B1) + np.uint64(axis * 0x85EBCA6B)
    hashed &= bits
    for multiplier, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        hashed ^= hashed >> np.uint64(shift)
        hashed = (hashed * np.uint64(multiplier)) & bits
    hashed ^= hashed >> np.uint64(16)
    return np.where(hashed & np.uint64(1), np.float32(-1), np.float32(1))


def column_signs(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Signs of a row of a weight: the column signs times the tap signs.

    Args:
        shape: the weight's shape, rows first.

    Returns:
        float32, shape (columns * taps,).
    """
    columns = shape[1] if len(shape) > 1 else 1
    taps = int(np.prod(shape[2:], dtype=np.int64))
    return np.outer(signs(COLUMNS, columns), signs(TAPS, taps)).reshape(-1)
