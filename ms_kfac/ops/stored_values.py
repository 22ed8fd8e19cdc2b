"""Copies of Parameters that outlive a step."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common.initializer import initializer

_copy = ops.MultitypeFuncGraph("copy")


@_copy.register("Tensor", "Tensor", "Tensor")
def _copy_value(after: Tensor, target: Tensor, source: Tensor) -> Tensor:
    return ops.assign(target, ops.depend(source, after))


class StoredValues(nn.Cell):
    """Keeps the values of Parameters in Parameters of its own, and puts them back.

    :class:`ms_kfac.ops.kept_values.KeptValues` keeps them as values of one compiled step; these are there
    inside branches and steps later, and cost a second copy of the Parameters.

    Args:
        parameters: the Parameters, of any dtype and shape.
        prefix: what the names of the copies start with.

    Platforms: CPU, GPU, Ascend (composed of Assign).
    """

    def __init__(self, parameters: Sequence[Parameter], prefix: str) -> None:
        super().__init__(auto_prefix=False)
        copies = [
            Parameter(
                initializer("zeros", parameter.shape, parameter.dtype),
                name=f"{prefix}.{parameter.name}",
                requires_grad=False,
            )
            for parameter in parameters
        ]
        self.originals = ParameterTuple(parameters)
        self.copies = ParameterTuple(copies)
        self.map_ = ops.Map()

    def store(self, after: Tensor) -> tuple[Tensor, ...]:
        """Copy the present values when ``after`` is there; what must come later waits for the result."""
        return self.map_(ops.partial(_copy, after), self.copies, self.originals)

    def put_back(self, after: Tensor) -> tuple[Tensor, ...]:
        """Write the copies into the Parameters when ``after`` is there."""
        return self.map_(ops.partial(_copy, after), self.originals, self.copies)
