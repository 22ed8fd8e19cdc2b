"""The update rule after preconditioning: trust region, weight decay, momentum, learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# The optimizers' defaults.
DAMPING, KL_CLIP = 0.1, 3e-4


def trust_region(pairs: list[tuple[float, np.ndarray, np.ndarray]], kl_clip: float | None) -> float:
    """ν = min(1, √(κ / Σ lr² ⟨dW, U⟩)) over (lr, dW, U) of the layers (Ba, Grosse & Martens 2017)."""
    if kl_clip is None:
        return 1.0
    total = sum(lr**2 * float(np.sum(dW * U)) for lr, dW, U in pairs)
    return min(1.0, float(np.sqrt(kl_clip / total))) if total > 0 else 1.0


@dataclass
class Momentum:
    """Heavy ball or Nesterov with weight decay, as `mindspore.nn.Momentum`, in float64."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decoupled: bool = False
    velocity: dict[str, np.ndarray] = field(default_factory=dict)

    def apply(self, name: str, weight: np.ndarray, direction: np.ndarray, lr: float) -> np.ndarray:
        """The new weight; names with `beta` or `gamma` are not decayed, as in `mindspore.nn.Optimizer`."""
        decay = 0.0 if "beta" in name or "gamma" in name else self.weight_decay
        shrink = 0.0
        if self.decoupled:
            shrink = lr * decay
        else:
            direction = direction + decay * weight
        velocity = self.momentum * self.velocity.get(name, np.zeros_like(weight)) + direction
        self.velocity[name] = velocity
        step = direction + self.momentum * velocity if self.nesterov else velocity
        return weight - shrink * weight - lr * step
