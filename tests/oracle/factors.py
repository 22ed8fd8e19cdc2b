"""Kronecker factors of one batch, by their definitions.

`g` is always the output gradient of the *per-sample* loss.

Expand (Martens & Grosse 2015; Grosse & Martens 2016), T locations or positions a sample:
    A = (1/N) Σ_{n,t} a aᵀ,    G = (1/(N T)) Σ_{n,t} g gᵀ
Reduce (Eschenhagen et al. 2023):
    A = (1/N) Σ_n ā āᵀ with ā the mean of a over t,    G = (1/N) Σ_n ĝ ĝᵀ with ĝ the sum of g over t
A bias is one more coordinate of a, with the value 1, in the last place.
"""

from __future__ import annotations

import numpy as np

from tests.oracle.patches import Geometry, extract


def shared_factors(
    a: np.ndarray, g: np.ndarray, bias: bool, sharing: str = "expand"
) -> tuple[np.ndarray, np.ndarray]:
    """(A, G) from a (N, T, d_in) and g (N, T, d_out)."""
    a, g = np.asarray(a, np.float64), np.asarray(g, np.float64)
    samples, positions = a.shape[:2]
    if bias:
        a = np.concatenate([a, np.ones((*a.shape[:2], 1))], axis=-1)
    if sharing == "reduce":
        mean, total = a.mean(axis=1), g.sum(axis=1)
        return mean.T @ mean / samples, total.T @ total / samples
    A = np.zeros((a.shape[-1], a.shape[-1]))
    G = np.zeros((g.shape[-1], g.shape[-1]))
    for n in range(samples):
        for t in range(positions):
            A += np.outer(a[n, t], a[n, t]) / samples
            G += np.outer(g[n, t], g[n, t]) / (samples * positions)
    return A, G


def dense_factors(
    a: np.ndarray, g: np.ndarray, bias: bool, sharing: str = "expand"
) -> tuple[np.ndarray, np.ndarray]:
    """(A, G) of a Dense layer from a (N, ..., d_in) and g (N, ..., d_out)."""
    return shared_factors(
        a.reshape(len(a), -1, a.shape[-1]), g.reshape(len(g), -1, g.shape[-1]), bias, sharing
    )


def conv_factors(
    images: np.ndarray, g: np.ndarray, geometry: Geometry, sharing: str = "expand"
) -> tuple[np.ndarray, np.ndarray]:
    """(A, G) of a convolution from images (N, C, H, W) and g (N, c_out, H_out, W_out).

    A grouped convolution has a leading axis of groups in both.
    """
    patches = extract(images, geometry)
    samples = len(images)
    per_in, per_out = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    pairs = []
    for group in range(geometry.groups):
        a = patches[:, :, :, group * per_in : (group + 1) * per_in]
        g_group = np.moveaxis(g[:, group * per_out : (group + 1) * per_out], 1, -1)
        pairs.append(
            shared_factors(
                a.reshape(samples, a.shape[1] * a.shape[2], -1),
                g_group.reshape(samples, -1, per_out),
                geometry.bias,
                sharing,
            )
        )
    if geometry.groups == 1:
        return pairs[0]
    return np.stack([A for A, _ in pairs]), np.stack([G for _, G in pairs])
