"""Gradients that add up over several micro-batches before the optimizer takes a step."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

_add_up = ops.MultitypeFuncGraph("add_up")


@_add_up.register("Tensor", "Tensor", "Tensor")
def _add_up_gradient(first: Tensor, total: Tensor, gradient: Tensor) -> Tensor:
    # Selected, not multiplied by 0: what was left by a step that overflowed may not be finite.
    value = ops.select(first, gradient, total + gradient)
    return ops.depend(value, ops.assign(total, value))


class GradientAccumulation(nn.Cell):
    """Adds gradients up over the micro-batches of a step, in Parameters.

    Args:
        weights: the Parameters that gradients are of.
        steps: micro-batches a step.

    Inputs:
        - **first** (Tensor) - what :meth:`is_first` said before this micro-batch's passes, bool.
        - **gradients** (tuple[Tensor]) - this micro-batch's.

    Outputs:
        The gradients' sums so far; whether this was the last micro-batch of its step, bool.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
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
        """Whether the coming micro-batch is the first of its step."""
        return self.position == 0

    def construct(self, first: Tensor, gradients: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        totals = self.map_(ops.partial(_add_up, first), self.totals, gradients)
        taken = (self.position + 1) % self.steps
        last = ops.depend(taken, ops.assign(self.position, taken)) == 0
        return totals, last
