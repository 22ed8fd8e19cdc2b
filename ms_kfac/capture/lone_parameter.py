"""A Parameter outside the layers that can be tapped: a position embedding, a scale, GroupNorm's gamma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import Parameter, nn

from ms_kfac.capture.layer import Layer, LayerOperators

KIND = "other"


@dataclass(frozen=True)
class NoOperators(LayerOperators):
    """Stands where a layer has its operators, and refuses: nothing is known of what the Parameter meets.

    Attributes:
        name: the Parameter's name.
    """

    name: str

    def _refuse(self) -> Any:
        raise TypeError(
            f"blocks['{KIND}'] must be a block that needs the gradient alone, such as DiagonalBlock: the "
            f"input that {self.name} meets is unknown"
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
    """Describe a Parameter as a layer of its own.

    Args:
        parameter: the Parameter, of any shape.

    Returns:
        The layer, which has the Parameter's name; its cell is empty and its operators refuse.
    """
    operators = NoOperators(bias=False, name=parameter.name)
    return Layer(
        name=parameter.name, kind=KIND, cell=nn.Cell(), weight=parameter, bias=None, operators=operators
    )
