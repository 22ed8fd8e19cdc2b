"""Cases and the oracle of the CUDA operator of momentum steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.support.cuda_cases import ROUNDOFF, assert_within, unaligned

# Scalars, less and more than a block's chunk of 2^14 numbers, and no multiple of 4.
SIZES = ((), (3, 4), (130, 127), (5,), (2, 3, 3), (1, 16390))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 numbers."""
    return rng.standard_normal(shape).astype(np.float32).reshape(shape)


class MomentumCase:
    """Parameters with and without decay, preconditioned or not, and updates in another order than theirs."""

    name = "MomentumStep"

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        nesterov: bool = False,
        decoupled: bool = False,
        own: bool = False,
        decays: bool = True,
        copies: int = 1,
    ) -> None:
        shapes = SIZES * copies
        count = len(shapes)
        self.nesterov, self.decoupled = nesterov, decoupled
        self.weights, self.moments, updates = ([normal(rng, shape) for shape in shapes] for _ in range(3))
        self.weights[0] = unaligned(self.weights[0])
        self.moments[2] = unaligned(self.moments[2])
        self.sources = [*list(range(1, count)), 0]
        self.updates = updates
        ordered = [updates[(index - 1) % count] for index in range(count)]
        self.rates = [np.array(0.1 + 0.03 * index, np.float32) for index in range(count if own else 1)]
        self.decays = [np.array(0.01 + 0.02 * index, np.float32) for index in range(count if own else 1)]
        self.decays = self.decays if decays else []
        self.momentum, self.scale = np.array(0.9, np.float32), np.array(0.3, np.float32)
        self.scaled = [index % 2 for index in range(count)]
        self.decayed = [int(index % 3 != 1 and decays) for index in range(count)]
        self.inputs = [self.momentum, self.scale, *self.rates, *self.decays, *ordered]
        self.first_weight = len(self.inputs)
        self.inputs += [*self.weights, *self.moments]
        self.outputs = [np.zeros(1, np.float32)]
        self.attributes: dict[str, Any] = {
            "preconditioned": self.scaled,
            "decayed": self.decayed,
            "rates": len(self.rates),
            "decays": len(self.decays),
            "updates": count,
            "sources": self.sources,
            "nesterov": nesterov,
            "decoupled": decoupled,
        }

    def check(self, found: Sequence[np.ndarray]) -> None:
        count = len(self.weights)
        for index in range(count):
            weight, moment = self.weights[index].astype(np.float64), self.moments[index].astype(np.float64)
            rate = float(self.rates[index % len(self.rates)])
            decay = float(self.decays[index % len(self.decays)]) if self.decayed[index] else 0.0
            mu = float(self.momentum)
            u = self.updates[index] * (float(self.scale) if self.scaled[index] else 1.0)
            size = abs(u)
            if not self.decoupled:
                u, size = u + decay * weight, size + abs(decay * weight)
            velocity, speed = mu * moment + u, abs(mu * moment) + size
            step, reach = (u + mu * velocity, size + mu * speed) if self.nesterov else (velocity, speed)
            shrink = 1 - rate * decay if self.decoupled else 1.0
            expected = shrink * weight - rate * step
            # A rounding for each of: scale, decay, momentum. The weight has five more.
            place = self.first_weight + index
            assert_within(found[place + count], velocity, 3.1 * ROUNDOFF * speed, f"v {index}")
            assert_within(found[place], expected, 8.1 * ROUNDOFF * (abs(weight) + rate * reach), f"w {index}")
