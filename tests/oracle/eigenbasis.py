"""Per-sample gradients, the exact Fisher block, and the blocks that EKFAC and K-FAC put in its place.

vec stacks columns, so that vec(g aᵀ) = a ⊗ g and (Q_A ⊗ Q_G)ᵀ vec(W) = vec(Q_Gᵀ W Q_A).
"""

from __future__ import annotations

import numpy as np

from tests.oracle.patches import Geometry, extract


def dense_gradients(a: np.ndarray, g: np.ndarray, bias: bool) -> np.ndarray:
    """dW_n (1, N, d_out, d_in [+ 1]) of a Dense layer on (N, ..., d_in)."""
    a = np.asarray(a, np.float64).reshape(len(a), -1, a.shape[-1])
    g = np.asarray(g, np.float64).reshape(len(g), -1, g.shape[-1])
    if bias:
        a = np.concatenate([a, np.ones((*a.shape[:2], 1))], axis=-1)
    return np.einsum("nto,nti->noi", g, a)[None]


def conv_gradients(images: np.ndarray, g: np.ndarray, geometry: Geometry) -> np.ndarray:
    """dW_n (groups, N, d_out, d_in [+ 1]) of a convolution."""
    patches = extract(images, geometry)
    samples, groups = len(images), geometry.groups
    blocks = []
    for a, u in zip(np.split(patches, groups, axis=3), np.split(g, groups, axis=1)):
        rows = a.reshape(samples, a.shape[1] * a.shape[2], -1)
        outputs = np.moveaxis(u, 1, -1).reshape(samples, rows.shape[1], -1)
        blocks.append(dense_gradients(rows, outputs, geometry.bias)[0])
    return np.stack(blocks)


def second_moments(dW: np.ndarray, Q_A: np.ndarray, Q_G: np.ndarray) -> np.ndarray:
    """s (d_out, d_in), the mean over samples of (Q_Gᵀ dW_n Q_A)², from dW (N, d_out, d_in)."""
    total = np.zeros(dW.shape[1:])
    for gradient in dW:
        total += (Q_G.T @ gradient @ Q_A) ** 2
    return total / len(dW)


def exact_block(dW: np.ndarray) -> np.ndarray:
    """(1/N) Σ vec(dW_n) vec(dW_n)ᵀ."""
    vectors = np.stack([gradient.reshape(-1, order="F") for gradient in dW])
    return vectors.T @ vectors / len(dW)


def eigenbasis_block(s: np.ndarray, Q_A: np.ndarray, Q_G: np.ndarray) -> np.ndarray:
    """(Q_A ⊗ Q_G) diag(vec s) (Q_A ⊗ Q_G)ᵀ."""
    basis = np.kron(np.asarray(Q_A, np.float64), np.asarray(Q_G, np.float64))
    return basis * np.asarray(s, np.float64).reshape(-1, order="F") @ basis.T
