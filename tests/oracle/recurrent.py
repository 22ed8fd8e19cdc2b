"""Steps of recurrent cells in NumPy, real or complex, as functions of their two linear maps.

`maps(name, x)` is W x + b; "name.ih" is the map of the input, "name.hh" that of the hidden state.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LinearMaps = Callable[[str, np.ndarray], np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0), with the sign of the real part."""
    return x * (x.real > 0)


def lstm_step(
    maps: LinearMaps, name: str, x: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(h, c) after a step (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000)."""
    i, f, g, o = np.split(maps(f"{name}.ih", x) + maps(f"{name}.hh", h), 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(maps: LinearMaps, name: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """h after a step (Cho et al. 2014); the reset gate is on the hidden state's map, not on its input."""
    r, z, n = np.split(maps(f"{name}.ih", x), 3, axis=1)
    hidden_r, hidden_z, hidden_n = np.split(maps(f"{name}.hh", h), 3, axis=1)
    n = np.tanh(n + sigmoid(r + hidden_r) * hidden_n)
    z = sigmoid(z + hidden_z)
    return (1 - z) * n + z * h


def rnn_step(maps: LinearMaps, name: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    """h after a step (Elman 1990), with a ReLU."""
    return relu(maps(f"{name}.ih", x) + maps(f"{name}.hh", h))
