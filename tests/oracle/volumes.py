"""Patches of a convolution over any number of axes by plain loops."""

from __future__ import annotations

from itertools import product

import numpy as np

Borders = tuple[tuple[int, int], ...]


def same_borders(
    sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Borders:
    """Zeros before and after each axis for as many outputs as ceil(size / stride)."""
    borders = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        borders.append((total // 2, total - total // 2))
    return tuple(borders)


def extract_patches(
    x: np.ndarray,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    borders: Borders,
    outputs: tuple[int, ...],
) -> np.ndarray:
    """Patches (N, T, C k) of x (N, C, ...), in float64; the first locations of each axis, `outputs` of them.

    Positions outside of x are zeros.
    """
    padded = np.asarray(x, np.float64)
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(outputs, stride, dilation, kernel)]
    after = [max(r - size - before, 0) for r, size, (before, _) in zip(reach, x.shape[2:], borders)]
    padded = np.pad(padded, ((0, 0), (0, 0), *((before, more) for (before, _), more in zip(borders, after))))
    found = np.empty((len(x), int(np.prod(outputs)), x.shape[1], int(np.prod(kernel))))
    for t, location in enumerate(product(*map(range, outputs))):
        for k, offset in enumerate(product(*map(range, kernel))):
            at = tuple(o * s + i * d for o, s, i, d in zip(location, stride, offset, dilation))
            found[:, t, :, k] = padded[(slice(None), slice(None), *at)]
    return found.reshape(len(x), found.shape[1], -1)
