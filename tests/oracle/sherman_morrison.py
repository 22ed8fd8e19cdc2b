"""Sherman-Morrison K-FAC of one layer in float64: it keeps the damped factors P, and inverts them densely.

full refresh      P_A = A + π√λ I
rank-one refresh  P_A ← P_A + α u uᵀ, u_i = √A_ii    (Liu, Gao & Wang 2021, equations 7 and 8)
rescale "trace"   P_A · (tr A + dim π√λ) / tr P_A is inverted after a rank-one refresh; P_A itself stays
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def splits(A: np.ndarray, G: np.ndarray, damping: float) -> tuple[float, float]:
    """Damping of A and of G."""
    pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(G) / len(G)))
    return pi * np.sqrt(damping), np.sqrt(damping) / pi


@dataclass
class FadingSum:
    """A weighted sum that fades by the factors it is given."""

    total: np.ndarray | float = 0.0
    weight: float = 0.0

    def add(self, batch: np.ndarray, factor: float) -> None:
        """Adds a batch of weight 1 to what is left of the past."""
        self.total, self.weight = factor * self.total + batch, factor * self.weight + 1

    @property
    def value(self) -> np.ndarray:
        """The average."""
        return np.asarray(self.total / self.weight)


@dataclass
class ReferenceLayer:
    """One pair of factors; `full_steps` says of every refresh in turn whether it is a full one."""

    full_steps: tuple[bool, ...]
    damping: float
    weights: tuple[float, float] = (0.1, 0.1)
    decay: float = 0.95
    rescale: bool = False
    refreshes: int = 0
    # Of the past, in batches: that of the full statistics counts the batches that were taken for them.
    past: float = 0.0
    full_past: float = 0.0
    full: list[FadingSum] = field(default_factory=lambda: [FadingSum(), FadingSum()])
    tracked: list[FadingSum] = field(default_factory=lambda: [FadingSum(), FadingSum()])
    damped: list[np.ndarray] = field(default_factory=list)
    scales: list[float] = field(default_factory=lambda: [1.0, 1.0])

    def add(self, pair: Pair) -> None:
        """One batch of statistics; they fade so that ε_k = min(1 − 1/k, ε) for the diagonals."""
        factor = self.kept(self.past)
        self.past = factor * self.past + 1
        for average, batch in zip(self.tracked, pair):
            average.add(batch, factor)
        if self.full_steps[self.refreshes]:
            factor = self.kept(self.full_past)
            self.full_past = factor * self.full_past + 1
            for average, batch in zip(self.full, pair):
                average.add(batch, factor)

    def kept(self, past: float) -> float:
        """What a batch leaves of the past."""
        return min(1.0, self.decay / (1 - self.decay) / past) if past else 1.0

    def refresh(self) -> None:
        """One refresh of the inverses."""
        diagonals = [np.diag(np.diag(average.value)) for average in self.tracked]
        if self.full_steps[self.refreshes]:
            A, G = (average.value for average in self.full)
            self.scales = [1.0, 1.0]
            self.damped = [F + c * np.eye(len(F)) for F, c in zip((A, G), splits(A, G, self.damping))]
        else:
            for i in range(2):
                u = np.sqrt(np.diag(diagonals[i]))
                self.damped[i] = self.damped[i] + self.weights[i] * np.outer(u, u)
                if self.rescale:
                    share = splits(*diagonals, self.damping)[i]
                    target = np.trace(diagonals[i]) + share * len(u)
                    self.scales[i] = target / np.trace(self.damped[i])
        self.refreshes += 1
        if self.full_steps[self.refreshes] and not self.full_steps[self.refreshes - 1]:
            self.full = [FadingSum(), FadingSum()]

    def precondition(self, dW: np.ndarray) -> np.ndarray:
        """P_G⁻¹ dW P_A⁻¹, of the scaled P."""
        U = np.linalg.solve(self.damped[1], np.linalg.solve(self.damped[0], dW.T).T)
        return np.asarray(U / (self.scales[0] * self.scales[1]))

    def condition(self) -> float:
        """What float32 rounding is multiplied with at worst."""
        return float(np.linalg.cond(self.damped[0]) * np.linalg.cond(self.damped[1]))
