"""The damped Kronecker solve, densely.

    U = (G + (√λ/π) I)⁻¹ dW (A + π√λ I)⁻¹,   π = √[(tr A / dim A) / (tr G / dim G)]

With vec stacking columns this is (A_damped ⊗ G_damped) vec U = vec dW (Martens & Grosse 2015, section 6.3).
"""

from __future__ import annotations

import numpy as np


def damped_factors(A: np.ndarray, G: np.ndarray, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """A and G with their shares of the damping λ added."""
    A, G = np.asarray(A, np.float64), np.asarray(G, np.float64)
    pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G)))
    root = np.sqrt(damping)
    return A + pi * root * np.eye(len(A)), G + root / pi * np.eye(len(G))


def kronecker_solve(dW: np.ndarray, A: np.ndarray, G: np.ndarray, damping: float) -> np.ndarray:
    """U (d_out, d_in) by one dense solve with the full Kronecker product."""
    A_damped, G_damped = damped_factors(A, G, damping)
    vec = np.asarray(dW, np.float64).reshape(-1, order="F")
    return np.linalg.solve(np.kron(A_damped, G_damped), vec).reshape(dW.shape, order="F")


def condition_number(A: np.ndarray, G: np.ndarray, damping: float) -> float:
    """Condition of A_damped ⊗ G_damped: what float32 rounding is multiplied with at worst."""
    A_damped, G_damped = damped_factors(A, G, damping)
    return float(np.linalg.cond(A_damped) * np.linalg.cond(G_damped))


def gradient_matrix(weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """dW (d_out, d_in [+ 1]): the weight's gradient, with the bias's gradient as the last column."""
    matrix = np.asarray(weight, np.float64).reshape(len(weight), -1)
    return matrix if bias is None else np.concatenate([matrix, np.asarray(bias, np.float64)[:, None]], axis=1)


def precondition(
    weight: np.ndarray,
    bias: np.ndarray | None,
    A: np.ndarray,
    G: np.ndarray,
    damping: float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Preconditioned gradients of weight and bias, group by group when A has a leading axis of groups."""
    dW = gradient_matrix(weight, bias)
    if A.ndim == 2:
        U = kronecker_solve(dW, A, G, damping)
    else:
        blocks = np.split(dW, len(A))
        U = np.concatenate([kronecker_solve(block, *pair, damping) for block, *pair in zip(blocks, A, G)])
    if bias is None:
        return U.reshape(weight.shape), None
    return U[:, :-1].reshape(weight.shape), U[:, -1]
