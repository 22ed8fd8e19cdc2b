"""The two problems that every library trains, as NumPy arrays and sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# How a library's step differs from an ordinary one: momentum SGD; curvature that stays as it is; factors at
# every step; factors and inverses at every step.
KINDS = ("sgd", "kept", "factors", "everything")
# Longer than any run, and a multiple of every factor interval.
NEVER = 10**6
# The zoo's sizes, without MindSpore in the processes of the others.
CHANNELS, KERNEL, SIDE = (32, 32, 64), 5, 4
WIDTHS, CODE_LAYER = (784, 1000, 500, 250, 30, 250, 500, 1000, 784), 3
LEARNING_RATE, MOMENTUM, DAMPING = 1e-4, 0.9, 0.1


def intervals(kind: str) -> tuple[int, int]:
    """The factor interval and the inverse interval of a kind other than "sgd"."""
    return {"kept": (NEVER, NEVER), "factors": (1, NEVER), "everything": (1, 1)}[kind]


@dataclass(frozen=True)
class Problem:
    """A network and a batch.

    Attributes:
        name: "convnet" or "autoencoder".
        inputs: float32, images (N, 3, 32, 32) or pixels (N, 784).
        targets: int32 labels (N,) or float32 pixels (N, 784).
    """

    name: str
    inputs: NDArray[np.float32]
    targets: NDArray[np.int32] | NDArray[np.float32]

    @property
    def classifies(self) -> bool:
        """Whether the loss is softmax cross-entropy, else the binary cross-entropy summed over pixels."""
        return self.name == "convnet"


def create_problem(name: str) -> Problem:
    """A problem with random data: 128 colour images in ten classes, or 500 grey images to reproduce."""
    rng = np.random.default_rng(1)
    if name == "convnet":
        images = rng.standard_normal((128, 3, 32, 32), dtype=np.float32)
        return Problem(name, images, rng.integers(0, 10, 128).astype(np.int32))
    if name == "autoencoder":
        pixels = rng.random((500, 784), dtype=np.float32)
        return Problem(name, pixels, pixels)
    raise ValueError(f"the problem must be convnet or autoencoder, got {name!r}")
