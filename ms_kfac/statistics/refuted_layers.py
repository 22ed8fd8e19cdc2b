"""Layers whose statistics are refuted while those of other layers are verified.

The weight of such a layer is also used outside the layer, or transformed before use. Its batches are refused.
After three refuted batches its earlier statistics are discarded, because they were verified by chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Number of refuted batches after which a layer's earlier statistics are discarded. Afterwards it must be
# verified as many times: one verification in a hundred is a coincidence.
_REFUTED = 3


class RefutedLayers:
    """Decides which batches of refuted layers are refused, and when a layer's statistics are discarded.

    Args:
        layers: number of layers.
    """

    def __init__(self, layers: int) -> None:
        self._refuted = np.zeros(layers, int)
        self._trusted = np.zeros(layers, bool)

    def __call__(
        self, mismatched: NDArray[Any], right: NDArray[Any], significant: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Look at one commit at which other layers were verified.

        Args:
            mismatched: which layers were refuted.
            right: which layers were verified.
            significant: which projections of gradients are more than rounding, and so are evidence.

        Returns:
            Which layers' batches are refused, and which of these layers' statistics are discarded, too.
        """
        changed = np.where(mismatched & ~self._trusted, _REFUTED, self._refuted + mismatched - right)
        self._refuted = np.clip(changed, 0, _REFUTED)
        refused = (mismatched | right) & (self._refuted > 0)
        emptied = mismatched & (self._refuted == _REFUTED)
        self._trusted = (self._trusted | (right & significant & ~refused)) & ~emptied
        return refused, emptied
