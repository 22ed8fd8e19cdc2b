"""The option ``loss_scale``: a number, a Parameter, or a loss scaler of MindSpore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Parameter, amp

from ms_kfac.values import check_number

# Gradients are multiplied by the reciprocal, which float32 must hold, too.
_LARGEST = 2.0**126


@dataclass(frozen=True)
class LossScale:
    """The factor by which the loss is multiplied before the backward pass.

    Attributes:
        number: the factor; 1 if a Parameter holds it.
        source: the Parameter that holds the factor, read at every commit; None for a number.
        gradients_unscaled: whether gradients arrive unscaled.
    """

    number: float = 1.0
    source: Parameter | None = None
    gradients_unscaled: bool = False

    @classmethod
    def of(cls, value: Any) -> LossScale:
        """Create the loss scale from the option ``loss_scale``.

        Args:
            value: a positive number, a scalar Parameter or a ``mindspore.amp`` loss scaler. With a number or
                a Parameter, gradients arrive multiplied by it, as in ``mindspore.nn.Momentum``. With a loss
                scaler, gradients arrive as its ``unscale`` returns them.

        Returns:
            The loss scale.

        Raises:
            TypeError: if it has another type.
            ValueError: if a number is not positive or float32 can't hold it and its reciprocal, or if a
                Parameter has more than one element or no float type.
        """
        if isinstance(value, amp.LossScaler):
            source = getattr(value, "scale_value", None)
            if not isinstance(source, Parameter):
                raise TypeError(
                    "loss_scale: a loss scaler must have a Parameter scale_value, as amp.DynamicLossScaler "
                    f"has, got {type(value).__name__}"
                )
            return cls(source=source, gradients_unscaled=True)
        if isinstance(value, Parameter):
            if value.size != 1 or value.dtype not in (ms.float32, ms.float16, ms.float64):
                raise ValueError(
                    "loss_scale: a Parameter must hold one number of a float type, got shape "
                    f"{tuple(value.shape)} of {value.dtype}"
                )
            return cls(source=value)
        return cls(number=check_number("loss_scale", value, low=0.0, high=_LARGEST, low_open=True))
