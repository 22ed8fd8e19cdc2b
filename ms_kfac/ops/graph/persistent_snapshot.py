"""Persistent snapshot of Parameters, which outlives a step."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common.initializer import initializer

_copy = ops.MultitypeFuncGraph("copy")


@_copy.register("Tensor", "Tensor", "Tensor")
def _copy_value(after: Tensor, target: Tensor, source: Tensor) -> Tensor:
    return ops.assign(target, ops.depend(source, after))


class PersistentSnapshot(nn.Cell):
    """Store the values of Parameters in additional Parameters, and restore them later.

    :class:`ms_kfac.ops.graph.snapshot.Snapshot` holds the values only within one compiled step. The copies of
    this class are available inside branches and in later steps. They need the memory of a second copy.

    Args:
        parameters: the Parameters, of any dtype and shape.
        prefix: prefix of the names of the copies.

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
        # Not in the Cell's registry, whose keys are the network's names and could be those of attributes.
        self.__dict__["originals"] = ParameterTuple(parameters)
        self.copies = ParameterTuple(copies)
        self.map_ = ops.Map()

    def store(self, after: Tensor) -> tuple[Tensor, ...]:
        """Copy the current values once ``after`` is computed. Later writes must depend on the result."""
        return self.map_(ops.partial(_copy, after), self.copies, self.originals)

    def put_back(self, after: Tensor) -> tuple[Tensor, ...]:
        """Restore the Parameters from the copies once ``after`` is computed."""
        return self.map_(ops.partial(_copy, after), self.originals, self.copies)
