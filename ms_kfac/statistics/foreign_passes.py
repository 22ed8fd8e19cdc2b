"""Backward passes between two commits that do not belong to the step: a generator's pass, an evaluation.

A batch that is refuted has either a changed gradient or a foreign pass. If the passes since the last commit
are exactly those that a batch adds up, no other pass can have replaced them, and the gradient was changed.
Otherwise the batch holds a foreign pass and is refused.

Foreign passes in front of the step's own, such as a generator's pass through the discriminator after the
discriminator's step, come again in the same order. Once the number of the step's own passes is known, the
passes in front of them are skipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ForeignPasses:
    """Finds batches of foreign passes, and how many passes to skip.

    Args:
        layers: number of layers.

    Attributes:
        skipped: per layer, the passes after a commit that are skipped.
    """

    def __init__(self, layers: int) -> None:
        self.skipped = np.zeros(layers, int)
        # Periods that were announced, or that a verification has confirmed.
        self._known = np.ones(layers)

    def __call__(
        self,
        passes: NDArray[Any],
        period: NDArray[Any],
        looked: NDArray[Any],
        right: NDArray[Any],
        weak: bool,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Look at one commit.

        Args:
            passes: passes since the last commit, without skipped ones, per layer.
            period: number of passes that a batch adds up, per layer.
            looked: which layers were verified or refuted.
            right: which layers were verified.
            weak: whether so few layers agree that their verification may be a coincidence.

        Returns:
            Which layers' batches hold a foreign pass, and the period of the next batches.
        """
        period = np.maximum(period, 1.0)
        suspects = looked & (((passes > 1) & (passes != period)) | (self.skipped > 0))
        foreign = suspects & ~right
        if suspects.any() and (weak or 2 * foreign.sum() > suspects.sum()):
            foreign = suspects | (looked & ~right)
        tried = (self.skipped > 0) & ~(right & ~foreign)
        self._known = np.where(tried, self._known, period)
        total = passes + self.skipped
        # The first batch may have begun with foreign passes: then all passes but one are tried.
        expected = np.where(self._known > 1, self._known, np.maximum(total - 1, 1))
        in_front = np.where(expected > 1, total - expected, 0)
        # The same number did not help before, or there were fewer passes than usual.
        hopeless = (in_front == self.skipped) | (in_front < 0)
        skipped = np.where(foreign, np.where(hopeless, 0, in_front), self.skipped).astype(int)
        period = np.where(foreign, np.where(skipped > 0, expected, self._known), period)
        self.skipped = skipped
        return foreign, period
