"""The unit-wise Fisher of a normalisation layer, by its definition.

Per channel c the second moment over samples of the per-sample gradients (∇γ_n, ∇β_n), with
∇γ_n = Σ_t g_n,t x̂_n,t and ∇β_n = Σ_t g_n,t (Osawa et al. 2020). `g` is the output gradient of the per-sample
loss; channels are last here.
"""

from __future__ import annotations

import numpy as np


def unit_wise_fisher(x_hat: np.ndarray, g: np.ndarray) -> np.ndarray:
    """F (C, 2, 2) from normalised inputs and output gradients (N, ..., C)."""
    x_hat, g = np.asarray(x_hat, np.float64), np.asarray(g, np.float64)
    samples, channels = len(g), g.shape[-1]
    F = np.zeros((channels, 2, 2))
    for n in range(samples):
        for c in range(channels):
            gradient = np.array([np.sum(g[n, ..., c] * x_hat[n, ..., c]), np.sum(g[n, ..., c])])
            F[c] += np.outer(gradient, gradient) / samples
    return F


def normalize(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """(x − mean) / √(variance + ε) with both moments over `axes`."""
    x = np.asarray(x, np.float64)
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)


def batch_normalized(x: np.ndarray, epsilon: float) -> np.ndarray:
    """x̂ of x (N, C, ...) with the batch's moments; channels last."""
    axes = (0, *range(2, x.ndim))
    return np.moveaxis(normalize(x, axes, epsilon), 1, -1)


def layer_normalized(x: np.ndarray, axes: int, epsilon: float) -> np.ndarray:
    """x̂ of x with the moments of each position over the last `axes` axes, flattened to one: (N, ..., C)."""
    normal = normalize(x, tuple(range(x.ndim - axes, x.ndim)), epsilon)
    return normal.reshape(*x.shape[: x.ndim - axes], -1)


def unit_wise_solve(d_gamma: np.ndarray, d_beta: np.ndarray, F: np.ndarray, damping: float) -> np.ndarray:
    """U (C, 2): (F_c + λI)⁻¹ (dγ_c, dβ_c), one dense solve of the whole block-diagonal matrix."""
    channels = len(F)
    whole = np.zeros((2 * channels, 2 * channels))
    for c in range(channels):
        whole[2 * c : 2 * c + 2, 2 * c : 2 * c + 2] = F[c]
    joined = np.stack([np.asarray(d_gamma, np.float64), np.asarray(d_beta, np.float64)], axis=1).reshape(-1)
    return np.linalg.solve(whole + damping * np.eye(2 * channels), joined).reshape(-1, 2)
