"""Some rows of a Parameter, for layers whose weights are parts of one Parameter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Union

from mindspore import Parameter


@dataclass(frozen=True, eq=False)
class ParameterRows:
    """Some rows of a Parameter, as the weight or bias of a layer.

    Attributes:
        parameter: the Parameter.
        begin: the first row.
        end: the row after the last row.
    """

    parameter: Parameter
    begin: int
    end: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the rows."""
        return (self.end - self.begin, *(int(size) for size in self.parameter.shape[1:]))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> Any:
        """The Parameter's type."""
        return self.parameter.dtype

    @property
    def name(self) -> str:
        """The Parameter's name, with the rows."""
        return f"{self.parameter.name}[{self.begin}:{self.end}]"


LayerParameter = Union[Parameter, ParameterRows]


def parameter_of(weight: LayerParameter) -> Parameter:
    """Return the Parameter that a layer's weight or bias belongs to.

    Args:
        weight: a Parameter, or some of its rows.

    Returns:
        The Parameter.
    """
    return weight.parameter if isinstance(weight, ParameterRows) else weight
