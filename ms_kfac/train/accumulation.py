"""Gradient accumulation over several micro-batches per optimizer step."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

_add_up = ops.MultitypeFuncGraph("add_up")


@_add_up.register("Tensor", "Tensor", "Tensor")
def _add_up_gradient(first: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
    # Selected instead of multiplied by 0: the total left by a step that overflowed may not be finite.
    value = ops.select(first, gradient, total + gradient)
    return ops.depend(value, ops.assign(total, value))


class GradientAccumulation(nn.Cell):
    """Sums gradients over the micro-batches of a step, in Parameters.

    Args:
        weights: the differentiated Parameters.
        steps: number of micro-batches per step.

    Inputs:
        - **first** (Tensor) - the result of :meth:`is_first` before this micro-batch's passes, bool.
        - **gradients** (tuple[Tensor]) - the gradients of this micro-batch.

    Outputs:
        - tuple[Tensor], the sums of the gradients so far.
        - Tensor, bool, whether this was the last micro-batch of its step.

    Platforms: CPU, GPU, Ascend (MindSpore operators).
    """

    def __init__(self, weights: ParameterTuple, steps: int) -> None:
        super().__init__(auto_prefix=False)
        self.steps = steps
        self.totals = weights.clone(prefix="accumulated", init="zeros")
        for total in self.totals:
            total.requires_grad = False
        self.position = Parameter(Tensor(0, ms.int32), name="accumulated.micro_batches", requires_grad=False)
        self.map_ = ops.Map()

    def is_first(self) -> Tensor:
        """Whether the next micro-batch is the first of its step."""
        return self.position == 0

    def construct(self, first: Tensor, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        totals = self.map_(ops.partial(_add_up, first), self.totals, gradients)
        taken = (self.position + 1) % self.steps
        last = ops.depend(taken, ops.assign(self.position, taken)) == 0
        return totals, last
