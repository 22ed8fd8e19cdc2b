"""What the curvature needs to know of a layer, whatever class it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from mindspore import Parameter, nn

UNTAPPED_CLASS = "untapped_class"
# The kind of a Parameter outside all layers.
OTHER = "other"


def overrides_construct(cell: nn.Cell, base: Any) -> bool:
    """Whether a subclass or the instance itself replaces a supported class's ``construct``.

    Args:
        cell: a layer, tapped or not.
        base: the supported class.

    Returns:
        Whether the layer computes anything but what the class does.
    """
    return "construct" in cell.__dict__ or untapped_class(cell).construct is not base.construct


def untapped_class(cell: nn.Cell) -> Any:
    """The class of a cell, looking through a tap.

    Args:
        cell: a layer, tapped or not.

    Returns:
        The class that the user gave it.
    """
    return cell.__dict__.get(UNTAPPED_CLASS, type(cell))


@dataclass(frozen=True)
class LayerOperators(ABC):
    """How a layer's input and output gradient become rows or columns.

    All layers of one geometry have equal operators.

    Attributes:
        bias: whether activations carry a homogeneous coordinate.
    """

    bias: bool

    channels_first = False

    @property
    def groups(self) -> int:
        """Number of channel groups."""
        return 1

    @abstractmethod
    def activations(self, reduce: bool) -> nn.Cell:
        """Operator from the layer's input to rows or columns."""

    @abstractmethod
    def gradients(self, reduce: bool) -> nn.Cell:
        """Operator from the output gradient to rows or columns."""

    @abstractmethod
    def second_moment(self) -> nn.Cell:
        """Operator that sums the outer products of those rows or columns."""

    @abstractmethod
    def projections(self) -> nn.Cell:
        """Operator from the input and the output gradient to u and v of the capture check."""

    def native_geometry(self) -> dict[str, Any] | None:
        """Attributes of a native kernel that does what these operators do; None where there is none."""
        return None


@dataclass(frozen=True)
class Layer:
    """A layer that can be preconditioned.

    Attributes:
        name: the cell's name in the network ("layer1.0.conv2").
        kind: what chooses the curvature block: "dense", "convolution", "embedding", "normalization", or any
            other word. "other" is the kind of Parameters outside all layers.
        cell: the layer itself.
        weight: its weight Parameter, output channels first; the table of an embedding (a row an id), gamma of
            a normalisation.
        bias: its bias Parameter, or None; beta of a normalisation.
        operators: how its inputs and output gradients become rows or columns.
        groups: number of channel groups, each with factors of its own.
        tapped_primitive: the cell's attribute that computes the linear map, where the map is tapped at its
            call: whatever the cell does before and after stays outside, as in a subclass that overrides
            ``construct``. Empty where the layer's own input and output are taken.
    """

    name: str
    kind: str
    cell: nn.Cell
    weight: Parameter
    bias: Parameter | None
    operators: LayerOperators
    groups: int = 1
    tapped_primitive: str = ""

    @property
    def input_dimension(self) -> int:
        """Dimension of A for one group, with the homogeneous coordinate of a bias."""
        dimension = 1
        for size in self.weight.shape[1:]:
            dimension *= int(size)
        return dimension + (self.bias is not None)

    @property
    def output_dimension(self) -> int:
        """Dimension of G for one group."""
        return int(self.weight.shape[0]) // self.groups if self.weight.ndim > 0 else 1

    def parameters(self) -> tuple[Parameter, ...]:
        """Weight, and bias where there is one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)
