"""A statistic: the staged batch of backward passes, and the committed average."""

from __future__ import annotations

from dataclasses import dataclass

from mindspore import Parameter

from ms_kfac.ops.graph.flat_buffer import SyncedTensor


@dataclass(frozen=True)
class Statistic:
    """One quantity that a block averages over batches.

    A backward pass writes ``batch``, a sum over samples. The optimizer step commits it: ``average`` becomes
    :math:`d` times itself plus the batch. The weight is updated in the same way, so that the estimate is
    ``average / weight``.

    Attributes:
        name: the name in the literature ("A").
        batch: the sum over the passes since the last commit, float32.
        average: the committed weighted sum, float32; None if only the last batch is used (SKFAC).
        weight: index of the layer's weight that divides it.
        gate: gate code with which it is taken: INPUTS, GRADIENTS or EVERYTHING of
            ``ms_kfac.ops.statistics.layer_statistics``.
        power: degree in the output gradient, which is also the exponent of the loss scale in it.
        symmetric: whether its last two axes hold symmetric, positive semi-definite matrices.
        samples: whether its weight counts samples. If a pass calls the layer several times, all calls have
            the same samples. Other weights count locations, of which each call has more.
    """

    name: str
    batch: Parameter
    average: Parameter | None
    weight: int
    gate: int
    power: int
    symmetric: bool = False
    samples: bool = True

    def share(self) -> SyncedTensor:
        """The tensor that ranks exchange for it."""
        return SyncedTensor(self.estimated(), symmetric=self.symmetric)

    def estimated(self) -> Parameter:
        """The sum from which the estimate is computed: the average, or the batch if there is no average."""
        return self.batch if self.average is None else self.average
