"""A loss scale that the optimizer was not told of: gradients were unscaled before the step, statistics not.

The factor between the delivered gradient and the one of the backward pass is then a power of two, or the same
at each commit. Clipping by the global norm has another factor for each batch.
"""

from __future__ import annotations

import numpy as np

from ms_kfac.statistics.calls import is_mean_of
from ms_kfac.statistics.explanation import OF_GRADIENT

# Least factor between gradients that can only be a loss scale.
_LEAST_SCALE = 32.0
# A factor counts as constant if it is the same in this many commits in a row, up to this relative difference.
_CONSTANT, _OF_FACTOR = 4, 3e-3


class UndeclaredScale:
    """Finds factors that hint at a loss scale."""

    def __init__(self) -> None:
        self._factors: tuple[float, ...] = ()

    def __call__(self, factor: float, micro_batches: int) -> bool:
        """Look at one commit.

        Args:
            factor: ratio of the delivered gradient to the one of the backward passes.
            micro_batches: number of micro-batches; the mean over them is no loss scale.

        Returns:
            Whether the factor hints at a loss scale.
        """
        power = np.log2(abs(factor)) if factor != 0 else 0.5
        is_power = abs(power - round(power)) < 1e-3 and abs(power) > 0.5
        self._factors = (*self._factors, factor)[-_CONSTANT:]
        spread = max(self._factors) - min(self._factors)
        is_constant = len(self._factors) == _CONSTANT and spread <= _OF_FACTOR * abs(factor)
        is_factor = is_power or (is_constant and abs(factor - 1.0) > OF_GRADIENT)
        return bool(is_factor) and not is_mean_of(micro_batches, factor)


def must_be_scale(factor: float) -> bool:
    """Whether a factor is too far from 1 to be the loop's own, such as a mean of two gradients."""
    return not _LEAST_SCALE > abs(factor) > 1.0 / _LEAST_SCALE
