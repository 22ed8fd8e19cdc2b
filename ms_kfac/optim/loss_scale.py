"""The loss scale that an optimizer is told of: a number, a Parameter, or one of MindSpore's loss scalers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Parameter, amp

from ms_kfac.optim.options import check_number


@dataclass(frozen=True)
class LossScale:
    """By which number the loss is multiplied before its backward pass.

    Attributes:
        number: that number; 1 where a Parameter holds it.
        source: the Parameter that holds it, read at every commit; None where it is a number.
        gradients_unscaled: whether gradients arrive without it.
    """

    number: float = 1.0
    source: Parameter | None = None
    gradients_unscaled: bool = False

    @classmethod
    def of(cls, value: Any) -> LossScale:
        """The loss scale of the option ``loss_scale``.

        Args:
            value: a positive number or a scalar Parameter: gradients arrive multiplied by it, as
                ``mindspore.nn.Momentum`` means it; or a ``mindspore.amp`` loss scaler: gradients arrive as
                its ``unscale`` returns them.

        Returns:
            The loss scale.

        Raises:
            TypeError: if it is something else.
            ValueError: if it is a number that is not positive, or a Parameter with more than one.
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
        return cls(number=check_number("loss_scale", value, low=0.0, low_open=True))
