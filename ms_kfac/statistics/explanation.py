"""Search for a legitimate loop that explains delivered gradients: a factor, several passes, an L2 term."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Tolerances for rounding, relative to |dW| and to |u| |v|. Entries of float16 gradients have a relative
# rounding error of 5e-4. Sums of float32 products, in any order, have an error below 1e-4 of |u| |v|.
OF_GRADIENT, OF_TERMS = 1e-2, 1e-4
# Minimum number of layers that must agree before an L2 term is accepted as an explanation.
_FEWEST = 3
# Number of layers that rules out a coincidence if a factor and an L2 term are fitted to them.
_MANY = 6


def explain(
    p: Vector, P: Vector, q: Vector, w: Vector, tolerance: Vector, passes: Vector, looked: NDArray[Any]
) -> tuple[float, NDArray[Any], NDArray[Any]]:
    """Find the best explanation of the delivered gradients.

    Args:
        p: projections of the staged batches, per layer.
        P: projections of all passes since the last commit.
        q: projections of the delivered gradients.
        w: projections of the weights.
        tolerance: largest residual that is rounding.
        passes: number of passes since the last commit.
        looked: which layers are compared.

    Returns:
        The factor, the layers that it fits, and the layers whose passes add up.
    """
    none_fits = np.zeros(len(p), bool)
    if not looked.any():
        return 1.0, none_fits, none_fits
    # P is p for a layer with one pass.
    several = bool((passes[looked] > 1).any())
    products = [(p, False), (P, True)] if several else [(p, False)]
    accounts = [(1.0, product, joined, False) for product, joined in products]
    if several:
        counts = float(np.gcd.reduce(passes[looked].astype(int))), float(np.median(passes[looked]))
        accounts += [(1.0 / count, P, True, False) for count in dict.fromkeys(counts) if count > 1.0]
    for fit in (_common_factor, _factor_next_to_l2):
        accounts += [(fit(part, q, w, tolerance, looked), part, joined, True) for part, joined in products]
    best: tuple[float, NDArray[Any], bool] = (1.0, none_fits, False)
    for factor, product, joined, fitted in accounts:
        allowed = tolerance * max(1.0, abs(factor))
        residual = q - factor * product
        fits = looked & (np.abs(residual) <= allowed)
        for own in (looked, looked & ~fits):
            # An L2 term of all layers, or of some of them.
            if own.sum() >= _FEWEST and not fits[looked].all():
                with_l2 = np.abs(residual - _l2_term(residual, w, own)) <= allowed
                fits = looked if with_l2[own].all() else fits
        # A fitted factor must fit several layers to be an explanation. With a single layer it can only be
        # gradient clipping, which makes the gradient smaller and never larger.
        single = looked.sum() == 1 and 0.0 < factor <= 1.0 + OF_GRADIENT
        if fitted and not single and fits.sum() < max(2, looked.sum() / 2):
            continue
        if fits.sum() > best[1].sum():
            best = (factor, fits, joined)
        if fits[looked].all():
            break
    factor, fits, joined = best
    return factor, fits, looked & joined


def is_weak(factor: float, residual: Vector, tolerance: Vector, looked: NDArray[Any]) -> bool:
    """Whether a fitted factor agrees with so few layers that this may be a coincidence.

    Args:
        factor: the factor.
        residual: the delivered projections minus the factor times the explaining ones.
        tolerance: largest residual that is rounding.
        looked: which layers are compared.

    Returns:
        Whether another pass could fit as well.
    """
    if factor == 1.0:
        return False
    without_l2 = np.abs(residual[looked]) <= tolerance[looked] * max(1.0, abs(factor))
    if not without_l2.all():
        return bool(looked.sum() < _MANY)
    return bool(looked.sum() < _FEWEST) and not 0.0 < factor <= 1.0 + OF_GRADIENT


def _common_factor(p: Vector, q: Vector, w: Vector, tolerance: Vector, looked: NDArray[Any]) -> float:
    """Median of q / p, weighted by |p| relative to the tolerance; 1 if no layer has a significant p."""
    telling = looked & (np.abs(p) > 3.0 * tolerance) & (np.abs(p) > 0)
    if not telling.any():
        return 1.0
    ratios, trust = q[telling] / p[telling], np.abs(p[telling]) / tolerance[telling]
    order = np.argsort(ratios)
    reached = np.cumsum(np.minimum(trust[order], 100.0))
    return float(ratios[order][np.searchsorted(reached, reached[-1] / 2)])


def _factor_next_to_l2(p: Vector, q: Vector, w: Vector, tolerance: Vector, looked: NDArray[Any]) -> float:
    """Least-squares c of q = c p + beta w, weighted by the tolerances; 1 if there are too few layers."""
    if looked.sum() <= _FEWEST:
        return 1.0
    weights = 1.0 / tolerance[looked]
    columns = np.stack([p[looked] * weights, w[looked] * weights], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(columns, q[looked] * weights, rcond=None)
    return float(solution[0]) if rank == 2 else 1.0


def _l2_term(residual: Vector, w: Vector, looked: NDArray[Any]) -> Vector:
    """Least-squares fit of the residual by one multiple of r'Ws in all layers."""
    total = float(np.sum(w[looked] ** 2))
    return w * (float(np.sum(residual[looked] * w[looked])) / total if total > 0 else 0.0)
