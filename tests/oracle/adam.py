"""AdamW in float64, and an update rule that differs from parameter to parameter."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from tests.oracle.momentum import Momentum


@dataclass
class AdamW:
    """Loshchilov & Hutter 2019, with decoupled decay of all names that are not `beta` or `gamma`."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    moments: dict[str, tuple[int, np.ndarray, np.ndarray]] = field(default_factory=dict)

    def apply(
        self, name: str, weight: np.ndarray, gradient: np.ndarray, lr: float, decay: float | None = None
    ) -> np.ndarray:
        """The new weight at a rate; `decay` replaces the rule's own."""
        if decay is None:
            decay = 0.0 if "beta" in name or "gamma" in name else self.weight_decay
        t, m, v = self.moments.get(name, (0, np.zeros_like(weight), np.zeros_like(weight)))
        t += 1
        m = self.beta1 * m + (1 - self.beta1) * gradient
        v = self.beta2 * v + (1 - self.beta2) * gradient**2
        self.moments[name] = t, m, v
        unbiased_m, unbiased_v = m / (1 - self.beta1**t), v / (1 - self.beta2**t)
        return weight - lr * (unbiased_m / (np.sqrt(unbiased_v) + self.eps) + decay * weight)


@dataclass
class MomentumAndAdam:
    """AdamW at its own rate for some names, momentum at the step's rate for the others."""

    momentum: Momentum
    adam: AdamW
    by_adam: Collection[str]

    def apply(self, name: str, weight: np.ndarray, direction: np.ndarray, lr: float) -> np.ndarray:
        """The new weight."""
        if name in self.by_adam:
            return self.adam.apply(name, weight, direction, self.adam.learning_rate)
        return self.momentum.apply(name, weight, direction, lr)
