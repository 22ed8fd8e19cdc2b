"""Inputs and output gradients of a network's linear maps, in float64 and without a backward pass.

The derivative of a loss by an output y is Im(loss(y + i h)) / h (Squire & Trapp 1998). It subtracts nothing,
so that with a tiny h it is exact but for rounding. Every function on the way must accept complex numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 1e-30


class Maps:
    """The maps x -> W x + b by their names, as functions that record inputs and outputs.

    `weights` has "name.weight" (d_out, d_in) and, unless there is no bias, "name.bias". `shift` names an
    element of an output to which i h is added: (name, call, index without the axis of samples).
    """

    def __init__(
        self,
        weights: dict[str, np.ndarray],
        shift: tuple[str, int, tuple[int, ...]] | None = None,
    ) -> None:
        self.weights, self.shift = weights, shift
        self.inputs: dict[str, list[np.ndarray]] = {}
        self.outputs: dict[str, list[np.ndarray]] = {}

    def __call__(self, name: str, x: np.ndarray) -> np.ndarray:
        y = x @ self.weights[f"{name}.weight"].T.astype(np.complex128)
        if f"{name}.bias" in self.weights:
            y = y + self.weights[f"{name}.bias"]
        outputs = self.outputs.setdefault(name, [])
        if self.shift is not None and self.shift[:2] == (name, len(outputs)):
            y[(slice(None), *self.shift[2])] += 1j * STEP
        self.inputs.setdefault(name, []).append(x)
        outputs.append(y)
        return y


def sides(
    losses: Callable[[Maps], np.ndarray], weights: dict[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(a, g) of every map, (N, T, d); the locations of further calls follow those of the first.

    `losses` gives the loss of each sample (N,), which must not depend on other samples.
    """
    recorded = Maps(weights)
    losses(recorded)
    found = {}
    for name, outputs in recorded.outputs.items():
        gradients = []
        for call, output in enumerate(outputs):
            g = np.empty(output.shape)
            for index in np.ndindex(output.shape[1:]):
                g[(slice(None), *index)] = losses(Maps(weights, (name, call, index))).imag / STEP
            gradients.append(g)
        pair = (
            np.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in arrays], axis=1)
            for arrays in (recorded.inputs[name], gradients)
        )
        a, g = pair
        found[name] = (a.real, g)
    return found
