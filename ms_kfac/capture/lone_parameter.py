"""A Parameter outside all tapped layers, such as a position embedding, a scale or GroupNorm's gamma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import Parameter, nn

from ms_kfac.capture.layer import OTHER, Layer, LayerOperators


@dataclass(frozen=True)
class NoOperators(LayerOperators):
    """Operators that raise at every call, because the input of a lone Parameter is unknown.

    Attributes:
        name: the Parameter's name.
    """

    name: str

    def _refuse(self) -> Any:
        raise TypeError(
            f"blocks[{OTHER!r}] must be a block that needs only the gradient, such as DiagonalBlock: the "
            f"input of {self.name} is unknown"
        )

    def activations(self, reduce: bool) -> nn.Cell:
        cell: nn.Cell = self._refuse()
        return cell

    def gradients(self, reduce: bool) -> nn.Cell:
        return self.activations(reduce)

    def second_moment(self) -> nn.Cell:
        return self.activations(False)

    def projections(self) -> nn.Cell:
        return self.activations(False)


def lone_parameter(parameter: Parameter) -> Layer:
    """Describe a Parameter as a layer.

    Args:
        parameter: the Parameter, of any shape.

    Returns:
        The layer. It has the Parameter's name, an empty cell, and operators that raise.
    """
    operators = NoOperators(bias=False, name=parameter.name)
    return Layer(
        name=parameter.name, kind=OTHER, cell=nn.Cell(), weight=parameter, bias=None, operators=operators
    )
