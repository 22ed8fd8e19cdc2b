"""Parameters that ``set_data`` writes in place, so that steps that are compiled already use the new values.

In MindSpore 2.10, ``Parameter.set_data`` gives a Parameter another buffer. ``load_param_into_net``,
``EarlyStopping(restore_best_weights=True)`` and other callbacks call it. Functions under ``ms.jit``, among
them the step of every optimizer in PyNative mode, and graphs with control flow keep the old buffer: they go
on from the old values, and the network never sees their updates.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Callable

from mindspore import Parameter, Tensor, ops
from mindspore.common.dtype import float_type


class SetInPlace:
    """Mixin of a Parameter's class: ``set_data`` keeps the buffer, where type and shape allow it."""

    has_init: bool
    shape: tuple[int, ...]
    dtype: Any
    sliced: bool
    # Called with the data after they were set.
    on_set: Callable[[Tensor], None] | None = None

    def set_data(self, data: Any, slice_shape: bool = False) -> Any:
        """Set the data, as ``mindspore.Parameter.set_data``.

        Args:
            data: a Tensor or a number.
            slice_shape: whether the shape may change.

        Returns:
            The Parameter.
        """
        above: Any = super()
        if isinstance(data, int) or (isinstance(data, float) and self.dtype in float_type):
            data = Tensor(data, self.dtype)
        if slice_shape or self.has_init or not isinstance(data, Tensor):
            return above.set_data(data, slice_shape)
        if data.has_init:
            data = data.init_data()
        if tuple(data.shape) != tuple(self.shape):
            return above.set_data(data, slice_shape)
        ops.assign(self, ops.cast(data, self.dtype))
        self.sliced = False
        if self.on_set is not None:
            self.on_set(data)
        return self


@cache
def _setting_in_place(cls: Any) -> Any:
    return type(cls.__name__, (SetInPlace, cls), {"__module__": cls.__module__})


def set_in_place(parameters: Iterable[Parameter]) -> None:
    """Let ``set_data`` of these Parameters write in place. Copies of them are ordinary Parameters.

    Args:
        parameters: the Parameters that compiled steps hold.
    """
    for parameter in parameters:
        cls: Any = type(parameter)
        if cls.set_data is Parameter.set_data:
            parameter.__class__ = _setting_in_place(cls)
