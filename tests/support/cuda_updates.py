"""Cases and oracles of the CUDA operators that go over arrays entry by entry: fading, momentum."""

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


class DecayCase:
    """Arrays of several owners, one of whose factors is 1; some lie at odd addresses.

    With flags some wait for one of them: whole, with their first 3 numbers, or with all but the last. Nine
    copies have each of that with every size and flag.
    """

    name = "Decay"

    def __init__(
        self, rng: np.random.Generator, *, due: int = 1, copies: int = 1, flags: Sequence[float] = ()
    ) -> None:
        self.factors = np.array([0.5, 1.0, 0.37], np.float32)
        arrays = [normal(rng, shape) for shape in SIZES * copies]
        arrays = [unaligned(array) if index % 2 else array for index, array in enumerate(arrays)]
        self.owners = [index % 3 for index in range(len(arrays))]
        self.due = due
        self.flags = [np.array(flag, np.float32) for flag in flags]
        places = [divmod(index, len(SIZES)) for index in range(len(arrays))]
        self.flag_of = [(copy + place) % (len(flags) + 1) - 1 for copy, place in places]
        kinds = [(array.size, min(array.size, 3), max(array.size - 1, 1)) for array in arrays]
        self.leading = [kinds[index][copy // 3 % 3] for index, (copy, _) in enumerate(places)]
        self.inputs = [np.array(due, np.int32), self.factors, *arrays, *self.flags]
        self.outputs = [np.zeros(1, np.float32)]
        self.attributes: dict[str, Any] = {
            "owners": self.owners,
            "flags": self.flag_of,
            "leading": self.leading,
        }

    def check(self, found: Sequence[np.ndarray]) -> None:
        for index, owner in enumerate(self.owners):
            before, after = self.inputs[2 + index].ravel(), found[2 + index].ravel()
            # One rounding of one product, as NumPy's.
            expected = before * self.factors[owner] if self.due else before.copy()
            if self.flag_of[index] >= 0 and not self.flags[self.flag_of[index]] > 0:
                expected[: self.leading[index]] = before[: self.leading[index]]
            np.testing.assert_array_equal(after, expected)
        for flag, after in zip(self.flags, found[2 + len(self.owners) :]):
            np.testing.assert_array_equal(after, flag)


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
