"""Assignment to Parameters of any float type."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, ops


def assign_cast(parameter: Parameter, value: Tensor) -> Tensor:
    """Assign a value, cast to the Parameter's type. ``ops.assign`` alone refuses a wider type.

    Args:
        parameter: the Parameter.
        value: the value.

    Returns:
        The Parameter after the assignment.
    """
    value = ops.cast(value, parameter.dtype)
    # Assign has no bfloat16 on CPU.
    return parameter.copy_(value) if parameter.dtype == ms.bfloat16 else ops.assign(parameter, value)
