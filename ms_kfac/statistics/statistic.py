"""A statistic: the batch that backward passes stage, and the average that the optimizer's step commits."""

from __future__ import annotations

from dataclasses import dataclass

from mindspore import Parameter

from ms_kfac.ops.flat_buffer import Share


@dataclass(frozen=True)
class Statistic:
    """One quantity that a block averages over batches.

    A backward pass writes ``batch``, a sum over samples. The optimizer's step commits it: ``average`` becomes
    :math:`d` times itself plus the batch, and so does the weight, so that the estimate is
    ``average / weight``.

    Attributes:
        name: its name in the literature ("A").
        batch: what the passes since the last commit brought, float32.
        average: the committed weighted sum, float32; None where the last batch is all there is (SKFAC).
        weight: which of its layer's weights divides it.
        gate: the gate's code that takes it: INPUTS, GRADIENTS or EVERYTHING of ``ms_kfac.ops.statistics``.
        power: of how many factors of the output gradient it is a product: the loss scale enters as often.
        symmetric: whether its last two axes are those of symmetric, positive semi-definite matrices.
    """

    name: str
    batch: Parameter
    average: Parameter | None
    weight: int
    gate: int
    power: int
    symmetric: bool = False

    def share(self) -> Share:
        """What ranks exchange of it."""
        return Share(self.estimated(), symmetric=self.symmetric)

    def estimated(self) -> Parameter:
        """The sum that its estimate is made of: the average, or the batch where there is none."""
        return self.batch if self.average is None else self.average
