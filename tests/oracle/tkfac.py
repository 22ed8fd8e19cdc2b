"""TKFAC in float64: its statistics by loops over samples and locations, its damping, and the whole optimizer.

Gao et al. 2021. Per sample and location, Λ = a aᵀ and Γ = g gᵀ with g of the *per-sample* loss; F ≈ δ Φ ⊗ Ψ.
    δ = (1/N) Σ_{n,t} tr Λ tr Γ,   δ Φ = (1/N) Σ_{n,t} tr(Γ) Λ,   δ Ψ = (1/N) Σ_{n,t} tr(Λ) Γ
vec stacks columns, so that vec(g aᵀ) = a ⊗ g and the block is δ kron(Φ, Ψ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.oracle.kfac import MovingAverage
from tests.oracle.momentum import DAMPING, KL_CLIP, Momentum, trust_region
from tests.oracle.network import Conv, Dense, Module
from tests.oracle.patches import Geometry, extract
from tests.oracle.preconditioner import gradient_matrix

Rows = tuple[np.ndarray, np.ndarray]


def dense_rows(a: np.ndarray, g: np.ndarray, bias: bool) -> Rows:
    """(a, g) of a Dense layer as (N, T, d), a with its homogeneous coordinate."""
    a = np.asarray(a, np.float64).reshape(len(a), -1, a.shape[-1])
    g = np.asarray(g, np.float64).reshape(len(g), -1, g.shape[-1])
    return (np.concatenate([a, np.ones((*a.shape[:2], 1))], axis=-1) if bias else a), g


def convolution_rows(images: np.ndarray, g: np.ndarray, geometry: Geometry) -> list[Rows]:
    """(a, g) of each group of a convolution as (N, T, d)."""
    patches, samples = extract(images, geometry), len(images)
    ins, outs = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    rows = []
    for group in range(geometry.groups):
        a = patches[:, :, :, group * ins : (group + 1) * ins].reshape(
            samples, -1, ins * np.prod(geometry.kernel)
        )
        g_group = np.moveaxis(g[:, group * outs : (group + 1) * outs], 1, -1).reshape(samples, -1, outs)
        rows.append(dense_rows(a, g_group, geometry.bias))
    return rows


def reduced(rows: Rows) -> Rows:
    """The reduce setting: the mean of a and the sum of g over locations, as one location."""
    a, g = rows
    return a.mean(axis=1, keepdims=True), g.sum(axis=1, keepdims=True)


@dataclass
class Block:
    """(Φ, Ψ, δ) of one group."""

    Phi: np.ndarray
    Psi: np.ndarray
    delta: float


def trace_restricted(rows: Rows) -> Block:
    """The definition, one location at a time."""
    a, g = rows
    samples, locations = a.shape[:2]
    Phi = np.zeros((a.shape[-1], a.shape[-1]))
    Psi = np.zeros((g.shape[-1], g.shape[-1]))
    delta = 0.0
    for n in range(samples):
        for t in range(locations):
            Lambda, Gamma = np.outer(a[n, t], a[n, t]), np.outer(g[n, t], g[n, t])
            Phi += np.trace(Gamma) * Lambda / samples
            Psi += np.trace(Lambda) * Gamma / samples
            delta += np.trace(Gamma) * np.trace(Lambda) / samples
    return Block(Phi / delta, Psi / delta, delta)


def exact_block(rows: Rows) -> np.ndarray:
    """Σ_t E[a aᵀ ⊗ g gᵀ]: the Fisher block itself where there is one location."""
    a, g = rows
    vectors = [np.kron(a[n, t], g[n, t]) for n in range(len(a)) for t in range(a.shape[1])]
    return np.array(vectors).T @ np.array(vectors) / len(a)


def automatic_factors(
    block: Block, nu: float, expansion: float = 1.0, homogeneous: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Φ and Ψ under equation (15), with δ̃ = max(ν, β δ)."""
    expanded = max(nu, expansion * block.delta)
    shift = np.sqrt(expanded) if homogeneous else expanded
    return tuple(
        np.sqrt(expanded) * factor + shift / len(factor) * np.eye(len(factor))
        for factor in (block.Phi, block.Psi)
    )


def normal_factors(block: Block, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """Φ and Ψ under equation (14)."""
    return tuple(
        np.sqrt(block.delta) * factor + np.sqrt(damping) * np.eye(len(factor))
        for factor in (block.Phi, block.Psi)
    )


def solve(dW: np.ndarray, damped: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """U from dW (d_out, d_in) by a dense solve with kron(Φ, Ψ) of each group."""
    parts = []
    for part, (Phi, Psi) in zip(np.split(np.asarray(dW, np.float64), len(damped)), damped):
        vec = np.linalg.solve(np.kron(Phi, Psi), part.reshape(-1, order="F"))
        parts.append(vec.reshape(part.shape, order="F"))
    return np.concatenate(parts)


def condition_number(damped: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The worst condition of a group's damped block."""
    return max(float(np.linalg.cond(Phi) * np.linalg.cond(Psi)) for Phi, Psi in damped)


def module_rows(module: Module) -> list[Rows]:
    """The rows that a module of the reference network saw last, group by group."""
    if isinstance(module, Conv):
        return convolution_rows(module.a, module.g, module.geometry)
    assert isinstance(module, Dense)
    return [dense_rows(module.a, module.g, module.bias)]


@dataclass
class Averages:
    """Moving averages of one group, of partial traces or of what equations (17) and (18) average."""

    decay: float
    paper: bool
    floor: float
    homogeneous: bool
    values: list[MovingAverage] = field(default_factory=list)

    def add(self, block: Block) -> None:
        """Takes one batch."""
        floored = max(self.floor, block.delta)
        scale = np.sqrt(floored) if self.paper else block.delta
        shift = np.sqrt(floored) if self.homogeneous else floored
        if not self.values:
            self.values = [MovingAverage(self.decay) for _ in range(4)]
        for average, value in zip(self.values, (scale * block.Phi, scale * block.Psi, block.delta, shift)):
            average.add(np.asarray(value))

    def damped(self, damping: float | None, nu: float, expansion: float) -> tuple[np.ndarray, np.ndarray]:
        """The damped pair; `damping` None is the automatic one."""
        Phi, Psi, delta, shift = (average.value for average in self.values)
        if not self.paper:
            block = Block(Phi / delta, Psi / delta, float(delta))
            if damping is None:
                return automatic_factors(block, nu, expansion, self.homogeneous)
            return normal_factors(block, damping)
        shifts = (np.sqrt(damping),) * 2 if damping is not None else ()
        growth = 1.0
        if damping is None:
            if self.floor == 0.0:
                growth = np.sqrt(max(nu, expansion * delta) / delta)
                power = 0.5 if self.homogeneous else 1.0
                shift = max(nu**power, expansion**power * shift)
            shifts = (shift / len(Phi), shift / len(Psi))
        return growth * Phi + shifts[0] * np.eye(len(Phi)), growth * Psi + shifts[1] * np.eye(len(Psi))


@dataclass
class ReferenceTKFAC:
    """The whole optimizer over a dictionary of weights; `damping` None is the automatic damping."""

    rule: Momentum
    damping: float | None = DAMPING
    nu: float = 1.0
    paper: bool = False
    homogeneous: bool = False
    max_expansion: float = 100.0
    factor_decay: float = 0.95
    factor_interval: int = 10
    inverse_interval: int = 100
    kl_clip: float | None = KL_CLIP
    step_number: int = 0
    expansion: float = 1.0
    averages: dict[str, list[Averages]] = field(default_factory=dict)
    damped: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)

    def observe(self, modules: Sequence[Module]) -> None:
        """Takes the statistics of the last batch from the affine modules."""
        for module in modules:
            rows = module_rows(module)
            floor = self.nu if self.damping is None and isinstance(module, Conv) else 0.0
            averages = self.averages.setdefault(
                module.name,
                [Averages(self.factor_decay, self.paper, floor, self.homogeneous) for _ in rows],
            )
            for average, group in zip(averages, rows):
                average.add(trace_restricted(group))

    def invert(self, modules: Sequence[Module]) -> None:
        """Damps the factors of all layers."""
        ratios = [
            self.nu / float(average.values[2].value)
            for module in modules
            if isinstance(module, Conv)
            for average in self.averages[module.name]
        ]
        self.expansion = min(max([1.0, *ratios]), self.max_expansion)
        for module in modules:
            expansion = 1.0 if isinstance(module, Conv) else self.expansion
            self.damped[module.name] = [
                average.damped(self.damping, self.nu, expansion) for average in self.averages[module.name]
            ]

    def step(
        self,
        weights: dict[str, np.ndarray],
        gradients: dict[str, np.ndarray],
        modules: Sequence[Module],
        lr: float,
    ) -> dict[str, np.ndarray]:
        """The weights after one step; `modules` have just been differentiated on its batch."""
        affine = [module for module in modules if isinstance(module, (Conv, Dense))]
        if self.step_number % self.factor_interval == 0:
            self.observe(affine)
        if self.step_number % self.inverse_interval == 0:
            self.invert(affine)
        self.step_number += 1
        directions = dict(gradients)
        pairs = []
        for module in affine:
            weight, bias = f"{module.name}.weight", f"{module.name}.bias"
            dW = gradient_matrix(gradients[weight], gradients.get(bias))
            U = solve(dW, self.damped[module.name])
            pairs.append((lr, dW, U))
            if bias in gradients:
                directions[bias], U = U[:, -1], U[:, :-1]
            directions[weight] = U.reshape(gradients[weight].shape)
        nu = trust_region(pairs, self.kl_clip)
        for module in affine:
            for name in (f"{module.name}.weight", f"{module.name}.bias"):
                if name in directions:
                    directions[name] = nu * directions[name]
        return {name: self.rule.apply(name, weights[name], directions[name], lr) for name in weights}
