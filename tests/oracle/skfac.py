"""SKFAC (Tang et al. 2021) from end to end in float64.

Factors of one batch; U = (G + √λ I)⁻¹ dW (A + √λ I)⁻¹ by dense solves, without Woodbury's identity.
Convolutions are reduced over their T locations first, on both sides: "sum" Σ_t p and Σ_t g, "mean" the same
over T. "all" keeps every location: what "subsample" gives when it draws all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.oracle.factors import conv_factors, shared_factors
from tests.oracle.momentum import KL_CLIP, Momentum, trust_region
from tests.oracle.network import Conv, Dense, Module
from tests.oracle.patches import Geometry, extract
from tests.oracle.preconditioner import gradient_matrix

Factors = tuple[np.ndarray, np.ndarray]


def reduced_conv_factors(images: np.ndarray, g: np.ndarray, geometry: Geometry, spatial: str) -> Factors:
    """(A, G) from images (N, C, H, W) and gradients g (N, c_out, H_out, W_out) of the per-sample loss."""
    if spatial == "all":
        return conv_factors(images, g, geometry)
    patches = extract(images, geometry)
    samples, locations = len(images), patches.shape[1] * patches.shape[2]
    share = 1.0 if spatial == "sum" else 1.0 / locations
    per_in, per_out = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    pairs = []
    for group in range(geometry.groups):
        p = patches[:, :, :, group * per_in : (group + 1) * per_in].reshape(samples, locations, -1)
        if geometry.bias:
            p = np.concatenate([p, np.ones((samples, locations, 1))], axis=2)
        u = np.asarray(g[:, group * per_out : (group + 1) * per_out], np.float64)
        a_bar = p.sum(axis=1, keepdims=True) * share
        g_hat = u.reshape(samples, per_out, locations).sum(axis=2)[:, None, :] * share
        pairs.append(shared_factors(a_bar, g_hat, bias=False))
    if geometry.groups == 1:
        return pairs[0]
    return np.stack([A for A, _ in pairs]), np.stack([G for _, G in pairs])


def statistics_of(modules: Sequence[Module], spatial: str) -> dict[str, Factors]:
    """(A, G) by layer name, from the batch that the modules saw last."""
    found: dict[str, Factors] = {}
    for module in modules:
        if isinstance(module, Conv):
            found[module.name] = reduced_conv_factors(module.a, module.g, module.geometry, spatial)
        elif isinstance(module, Dense):
            found[module.name] = module.factors()
    return found


def damped(A: np.ndarray, G: np.ndarray, damping: float, split: bool = False) -> Factors:
    """A + √λ I and G + √λ I; with `split` A + π√λ I and G + √λ/π I."""
    A, G = np.asarray(A, np.float64), np.asarray(G, np.float64)
    root, pi = np.sqrt(damping), np.ones(A.shape[:-2])
    if split:
        mean_A, mean_G = (np.trace(F, axis1=-2, axis2=-1) / F.shape[-1] for F in (A, G))
        pi = np.sqrt(mean_A / mean_G)
    pi = pi[..., None, None]
    return A + root * pi * np.eye(A.shape[-1]), G + root / pi * np.eye(G.shape[-1])


def precondition_matrix(
    dW: np.ndarray, A: np.ndarray, G: np.ndarray, damping: float, split: bool = False
) -> np.ndarray:
    """U for dW (d_out, d_in [+ 1]), group by group when A has a leading axis of groups."""
    A_damped, G_damped = damped(A, G, damping, split)
    if A.ndim == 3:
        blocks = np.split(dW, len(A))
        return np.concatenate(
            [precondition_matrix(b, *pair, damping, split) for b, *pair in zip(blocks, A, G)]
        )
    return np.linalg.solve(A_damped, np.linalg.solve(G_damped, dW).T).T


def precondition(
    weight: np.ndarray,
    bias: np.ndarray | None,
    A: np.ndarray,
    G: np.ndarray,
    damping: float,
    split: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Preconditioned gradients of weight and bias."""
    U = precondition_matrix(gradient_matrix(weight, bias), A, G, damping, split)
    if bias is None:
        return U.reshape(weight.shape), None
    return U[:, :-1].reshape(weight.shape), U[:, -1]


@dataclass
class ReferenceSKFAC:
    """The whole optimizer over a dictionary of weights; each refresh of the statistics replaces the last."""

    layers: tuple[str, ...]
    rule: Momentum
    damping: float
    factor_interval: int
    inverse_interval: int
    kl_clip: float | None = KL_CLIP
    step_number: int = 0
    present: dict[str, Factors] = field(default_factory=dict)
    inverted: dict[str, Factors] = field(default_factory=dict)

    def step(
        self,
        weights: Mapping[str, np.ndarray],
        gradients: Mapping[str, np.ndarray],
        statistics: Mapping[str, Factors],
        lr: float,
    ) -> dict[str, np.ndarray]:
        """The weights after one step."""
        if self.step_number % self.factor_interval == 0:
            self.present = dict(statistics)
        if self.step_number % self.inverse_interval == 0:
            self.inverted = dict(self.present)
        self.step_number += 1
        directions, pairs = dict(gradients), []
        for layer in self.layers:
            names = [name for name in (f"{layer}.weight", f"{layer}.bias") if name in gradients]
            found = precondition(
                gradients[names[0]], gradients.get(f"{layer}.bias"), *self.inverted[layer], self.damping
            )
            for name, U in zip(names, found):
                directions[name] = U
                pairs.append((name, U))
        nu = trust_region([(lr, gradients[name], U) for name, U in pairs], self.kl_clip)
        directions.update({name: nu * U for name, U in pairs})
        return {name: self.rule.apply(name, weights[name], directions[name], lr) for name in weights}
