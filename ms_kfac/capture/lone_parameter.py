"""A Parameter outside the layers that can be tapped: a position embedding, a scale, GroupNorm's gamma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import Parameter, nn

from ms_kfac.capture.layer import OTHER, Layer, LayerOperators


@dataclass(frozen=True)
class NoOperators(LayerOperators):
    """Takes the place of a layer's operators and refuses every call: the Parameter's input is unknown.

    Attributes:
        name: the Parameter's name.
    """

    name: str

    def _refuse(self) -> Any:
        raise TypeError(
            f"blocks[{OTHER!r}] must be a block that needs the gradient alone, such as DiagonalBlock: the "
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
        The layer, which has the Parameter's name; its cell is empty and its operators refuse.
    """
    operators = NoOperators(bias=False, name=parameter.name)
    return Layer(
        name=parameter.name, kind=OTHER, cell=nn.Cell(), weight=parameter, bias=None, operators=operators
    )
