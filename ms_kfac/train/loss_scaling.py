"""A loss scale that drops steps which overflow, and may change after every step."""

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
    """Holds the loss scale, finds overflow in gradients and lets the scale follow.

    Args:
        update: MindSpore's rule for the scale: ``nn.DynamicLossScaleUpdateCell``,
            ``nn.FixedLossScaleUpdateCell`` or another Cell with ``get_loss_scale()`` that takes the scale's
            Parameter and whether the step overflowed.

    Attributes:
        scale: the present loss scale, scalar float32, under MindSpore's name for it.
        running: the scale of the running step, which the optimizer reads when it commits statistics:
            ``scale`` itself changes before that.

    Raises:
        TypeError: if ``update`` is no such Cell.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, update: Any) -> None:
        super().__init__(auto_prefix=False)
        if not isinstance(update, nn.Cell) or not callable(getattr(update, "get_loss_scale", None)):
            raise TypeError(
                "scale_sense must be None or a Cell that updates a loss scale, as "
                "nn.DynamicLossScaleUpdateCell or the get_update_cell() of a loss scale manager, "
                f"got {update!r}"
            )
        scale = float(update.get_loss_scale())
        self.update = update
        self.scale = Parameter(Tensor(scale, ms.float32), name="scale_sense", requires_grad=False)
        self.running = Parameter(Tensor(scale, ms.float32), name="scale_sense.running", requires_grad=False)
        self.map_ = ops.Map()

    def start(self) -> Tensor:
        """Write the scale of the coming step; its passes wait for the result."""
        return ops.assign(self.running, self.scale)

    def unscale(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The gradients divided by the scale of this step."""
        return self.map_(ops.partial(_unscale, ops.reciprocal(self.scale)), gradients)

    def overflows(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Whether a gradient holds an infinity or NaN, scalar bool."""
        overflowed = ops.stack(self.map_(_overflowed, gradients))
        return overflowed.sum() > 0.5

    def adjust(self, overflow: Tensor) -> Tensor:
        """Let the scale follow after a step; the result is ``overflow`` again."""
        return self.update(self.scale, overflow)
