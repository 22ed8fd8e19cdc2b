"""Number of calls of each layer in one backward pass: shared layers, Siamese towers, unrolled recurrences.

The passes that a commit finds staged are calls or micro-batches. Calls are further locations of the same
samples, as those of a convolution. Micro-batches bring new samples.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray


class CallsPerPass:
    """Divides the passes of a step into micro-batches and calls.

    The number of micro-batches is one of the following, in this order:

    * the announced one;
    * the largest number that divides the passes of all layers, if it also divides the gradients (averaged
      micro-batches);
    * the largest number that divides the passes of all layers after division by the calls that were seen.
      Taps see calls in PyNative mode, native kernels see them in compiled steps: each call has a kernel.

    Args:
        layers: number of layers.
        seen: returns the calls of each layer that Python has seen, 0 if unknown.
        found: called with the index of a layer, its calls and its passes per step, when its calls change.

    Attributes:
        announced: the announced number of micro-batches; None if it is unknown.
        micro_batches: the number at the last commit.
        ambiguous: whether the last commit could not tell calls from micro-batches.
        calls: calls of each layer per backward pass, as found so far.
    """

    def __init__(
        self,
        layers: int,
        seen: Callable[[], list[int]] | None = None,
        found: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self.seen = seen
        self.found = found
        self.announced: int | None = None
        self.micro_batches = 1
        self.ambiguous = False
        self.calls = np.ones(layers, int)

    def __call__(
        self, passes: NDArray[Any], kernels: NDArray[Any], right: NDArray[Any], factor: float
    ) -> NDArray[Any]:
        """Update the calls of the layers whose batch belongs to the gradient.

        Args:
            passes: number of passes in the batch, per layer.
            kernels: number of kernels that staged the batch, per layer; 0 if unknown.
            right: whether the batch belongs to the gradient, per layer.
            factor: ratio of the gradient to the sum of the passes' gradients.

        Returns:
            The calls of all layers.
        """
        self.ambiguous = False
        if not right.any():
            return self.calls
        passes, kernels = passes.astype(int), kernels.astype(int)
        seen = np.zeros_like(passes) if self.seen is None else np.array(self.seen(), int)
        least = np.maximum(np.where(seen > 0, seen, kernels), 1)
        if not right.all():
            # Not all layers take statistics at this step.
            least = np.maximum(least, self.calls)
        least = np.minimum(least, passes)
        self.micro_batches = self._micro_batches(passes[right], least[right], factor)
        self.ambiguous = self.micro_batches > 1 and self._unknown(seen[right] + kernels[right], factor)
        # More passes than calls are those of several losses, whose curvatures add up as those of locations.
        found = np.maximum(passes // self.micro_batches, 1)
        before, self.calls = self.calls, np.where(right, found, self.calls)
        if self.found is not None:
            for index in np.flatnonzero(self.calls != before):
                self.found(int(index), int(self.calls[index]), int(passes[index]))
        return self.calls

    def _micro_batches(self, passes: NDArray[Any], least: NDArray[Any], factor: float) -> int:
        if self.announced is not None:
            return self.announced
        common = int(np.gcd.reduce(passes))
        return common if is_mean_of(common, factor) else int(np.gcd.reduce(passes // least))

    def _unknown(self, seen: NDArray[Any], factor: float) -> bool:
        return self.announced is None and not seen.any() and not is_mean_of(self.micro_batches, factor)


def is_mean_of(count: int, factor: float) -> bool:
    """Whether gradients are the mean over so many micro-batches, at least two."""
    return count > 1 and abs(factor * count - 1.0) < 1e-2
