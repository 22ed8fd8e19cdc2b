"""Snapshot of Parameters within one compiled step."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

_negative = ops.MultitypeFuncGraph("negative")
_difference = ops.MultitypeFuncGraph("difference")
_put_back = ops.MultitypeFuncGraph("put_back")


@_negative.register("Tensor")
def _negative_of_value(value: Tensor) -> Tensor:
    return -value


@_difference.register("Tensor", "Tensor")
def _difference_of_values(value: Tensor, negative: Tensor) -> Tensor:
    return value + negative


@_put_back.register("Tensor", "Tensor", "Tensor")
def _put_back_value(after: Tensor, parameter: Tensor, negative: Tensor) -> Tensor:
    return ops.assign(parameter, ops.depend(-negative, after))


class Snapshot(nn.Cell):
    """Read Parameters, and later restore the values or compute how much the Parameters have changed.

    :meth:`read` returns negated values. A compiled graph may replace a plain copy by the Parameter itself,
    which is overwritten later.

    Args:
        parameters: the Parameters, of any dtype and shape.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        # Not in the Cell's registry, whose keys are the network's names and could be those of attributes.
        self.__dict__["kept"] = ms.ParameterTuple(parameters)
        self.map_ = ops.Map()

    def read(self) -> tuple[Tensor, ...]:
        """Return the current values, negated."""
        return self.map_(_negative, self.kept)

    def moved(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the current values minus the values read. ``values`` is the result of :meth:`read`."""
        return self.map_(_difference, self.kept, values)

    def put_back(self, values: tuple[Tensor, ...], after: Tensor) -> tuple[Tensor, ...]:
        """Restore the values once ``after`` is computed. Later reads must depend on the result."""
        return self.map_(ops.partial(_put_back, after), self.kept, values)
