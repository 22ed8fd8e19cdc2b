"""K-FAC from end to end in float64: moving averages, intervals, inverses, trust region, momentum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.oracle.momentum import DAMPING, KL_CLIP, Momentum, trust_region
from tests.oracle.preconditioner import precondition

Factors = tuple[np.ndarray, np.ndarray]


@dataclass
class MovingAverage:
    """F ← ε_k F + (1 − ε_k) F_batch, ε_k = min(1 − 1/k, ε): the first batch (k = 1) is used whole."""

    decay: float
    count: int = 0
    value: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, batch: np.ndarray) -> None:
        """Takes the statistics of one more batch."""
        self.count += 1
        weight = min(1 - 1 / self.count, self.decay)
        self.value = weight * self.value + (1 - weight) * batch


@dataclass
class ReferenceKFAC:
    """The whole optimizer over a dictionary of weights.

    `layers` names the preconditioned ones: `conv1` has the weight `conv1.weight` and maybe `conv1.bias`.
    """

    layers: tuple[str, ...]
    rule: Momentum
    damping: float | Callable[[int], float] = DAMPING
    factor_decay: float = 0.95
    factor_interval: int = 10
    inverse_interval: int = 100
    kl_clip: float | Callable[[int], float] | None = KL_CLIP
    step_number: int = 0
    averages: dict[str, tuple[MovingAverage, MovingAverage]] = field(default_factory=dict)
    inverted: dict[str, tuple[np.ndarray, np.ndarray, float]] = field(default_factory=dict)

    def step(
        self,
        weights: Mapping[str, np.ndarray],
        gradients: Mapping[str, np.ndarray],
        statistics: Mapping[str, Factors],
        lr: float | Mapping[str, float],
    ) -> dict[str, np.ndarray]:
        """The weights after one step, from the gradients and this batch's (A, G) of each layer."""
        rates = lr if isinstance(lr, Mapping) else dict.fromkeys(weights, lr)
        if self.step_number % self.factor_interval == 0:
            for layer in self.layers:
                pair = self.averages.setdefault(
                    layer, (MovingAverage(self.factor_decay), MovingAverage(self.factor_decay))
                )
                for average, batch in zip(pair, statistics[layer]):
                    average.add(batch)
        if self.step_number % self.inverse_interval == 0:
            damping = self.damping(self.step_number) if callable(self.damping) else self.damping
            for layer in self.layers:
                A, G = self.averages[layer]
                self.inverted[layer] = (A.value.copy(), G.value.copy(), damping)
        kl_clip = self.kl_clip(self.step_number) if callable(self.kl_clip) else self.kl_clip
        self.step_number += 1

        directions = dict(gradients)
        pairs = []
        for layer in self.layers:
            weight, bias = f"{layer}.weight", f"{layer}.bias"
            U, u = precondition(gradients[weight], gradients.get(bias), *self.inverted[layer])
            directions[weight] = U
            pairs.append((rates[weight], gradients[weight], U))
            if u is not None:
                directions[bias] = u
                pairs.append((rates[bias], gradients[bias], u))
        nu = trust_region(pairs, kl_clip)
        for layer in self.layers:
            for name in (f"{layer}.weight", f"{layer}.bias"):
                if name in directions:
                    directions[name] = nu * directions[name]
        return {name: self.rule.apply(name, weights[name], directions[name], rates[name]) for name in weights}
