"""Collapsed training: layers whose gradients were non-zero and are now exactly 0.

An example is a network whose later ReLUs are all dead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Number of consecutive commits with a zero gradient after which a layer counts as dead.
DEAD = 3


class DeadLayers:
    """Counts, per layer, the commits in a row whose gradient is exactly 0 after one that was not.

    Args:
        layers: number of layers.
    """

    def __init__(self, layers: int) -> None:
        self._had_gradient = np.zeros(layers, bool)
        self._without_gradient = np.zeros(layers, int)

    def __call__(self, reached: NDArray[Any], norm: NDArray[Any]) -> NDArray[Any]:
        """Look at one commit.

        Args:
            reached: which layers had a backward pass, with finite statistics and gradient.
            norm: norms of the delivered gradients.

        Returns:
            Which layers are dead.
        """
        self._had_gradient |= norm > 0
        without = reached & self._had_gradient & (norm == 0)
        before = self._without_gradient
        self._without_gradient = np.where(without, before + 1, np.where(reached, 0, before))
        return self._without_gradient >= DEAD
