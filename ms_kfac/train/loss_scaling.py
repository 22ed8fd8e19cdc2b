"""Dynamic loss scaling, which drops steps that overflow and adjusts the scale after each step."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

_overflowed = ops.MultitypeFuncGraph("overflowed")
_unscale = ops.MultitypeFuncGraph("unscale")


@_overflowed.register("Tensor")
def _overflowed_gradient(gradient: Tensor) -> Tensor:
    return 1.0 - ops.cast(ops.isfinite(gradient).all(), ms.float32)


@_unscale.register("Tensor", "Tensor")
def _unscale_gradient(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * ops.cast(factor, gradient.dtype)


class LossScaling(nn.Cell):
    """Holds the loss scale, detects overflow in gradients and adjusts the scale.

    Args:
        update: MindSpore's rule for the scale: ``nn.DynamicLossScaleUpdateCell``,
            ``nn.FixedLossScaleUpdateCell`` or another Cell with ``get_loss_scale()``. It is called with the
            scale's Parameter and whether the step overflowed.

    Attributes:
        scale: the current loss scale, scalar float32, under MindSpore's name for it.
        running: the scale of the running step. The optimizer reads it when it commits statistics, because
            ``scale`` changes before that.

    Raises:
        TypeError: if ``update`` is not such a Cell.

    Platforms: CPU, GPU, Ascend (MindSpore operators).
    """

    def __init__(self, update: Any) -> None:
        super().__init__(auto_prefix=False)
        if not isinstance(update, nn.Cell) or not callable(getattr(update, "get_loss_scale", None)):
            raise TypeError(
                "scale_sense must be None or a Cell that updates a loss scale, such as "
                "nn.DynamicLossScaleUpdateCell or the get_update_cell() of a loss scale manager, "
                f"got {update!r}"
            )
        scale = float(update.get_loss_scale())
        self.update = update
        self.scale = Parameter(Tensor(scale, ms.float32), name="scale_sense", requires_grad=False)
        self.running = Parameter(Tensor(scale, ms.float32), name="scale_sense.running", requires_grad=False)
        self.map_ = ops.Map()

    def start(self) -> Tensor:
        """Store the scale of the next step. Its passes must wait for the result."""
        return ops.assign(self.running, self.scale)

    def unscale(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Divide the gradients by the scale of this step."""
        return self.map_(ops.partial(_unscale, ops.reciprocal(self.scale)), gradients)

    def overflows(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Whether a gradient contains Inf or NaN, scalar bool."""
        overflowed = ops.stack(self.map_(_overflowed, gradients))
        return overflowed.sum() > 0.5

    def adjust(self, overflow: Tensor) -> Tensor:
        """Adjust the scale after a step, and return the result of ``update``: ``overflow``."""
        return self.update(self.scale, overflow)
