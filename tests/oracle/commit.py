"""What a commit makes of a staged batch, one statistic at a time, in float64.

With W the past in commits and d = min(1, ε / (1 − ε) / W):  S ← d S + Ŝ,  n ← d n + n̂,  W ← d W + 1.
Sums without weight have no past to keep, while W counts on: a refresh that clears sums leaves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Average:
    """One weight and the averages that share it."""

    decay: float
    totals: list[np.ndarray] = field(default_factory=list)
    weight: float = 0.0
    past: float = 0.0

    def add(self, batches: list[np.ndarray], weight: float) -> None:
        """Commits sums over a batch with its weight."""
        decay = min(1.0, self.decay / (1 - self.decay) / self.past) if self.past > 0 else 0.0
        keep = decay if self.weight > 0 else 0.0
        batches = [np.asarray(batch, np.float64) for batch in batches]
        self.totals = [keep * S + batch for S, batch in zip(self.totals, batches)] if keep else batches
        self.weight, self.past = keep * self.weight + weight, decay * self.past + 1

    def clear(self) -> None:
        """Empties the sums, as a refresh does whose basis they belonged to."""
        self.weight = 0.0


def root_batch(
    Phi: np.ndarray, Psi: np.ndarray, delta: np.ndarray, weight: float, floor: float, homogeneous: bool
) -> list[np.ndarray]:
    """TKFAC's batch under the average of its paper, from the sums of one batch of `weight` samples.

    A batch of mean trace δ and trace-one factors enters as √δ̃ Φ, √δ̃ Ψ, and (δ, √δ̃ or δ̃), δ̃ = max(ν, δ).
    """
    sums = np.asarray(delta, np.float64)
    mean = sums / weight
    floored = np.maximum(mean, floor)
    root = np.sqrt(floored)
    safe = np.where(sums > 0, sums, 1.0)
    traces = np.stack([mean, root if homogeneous else floored])
    return [weight * root * Phi / safe, weight * root * Psi / safe, weight * traces]
