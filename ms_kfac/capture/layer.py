"""What the curvature needs to know of a layer, whatever class it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Optional

from mindspore import Parameter, nn


@dataclass(frozen=True)
class Layer(ABC):
    """A layer that can be preconditioned.

    Attributes:
        name: the cell's name in the network ("layer1.0.conv2").
        cell: the layer itself.
        weight: its weight Parameter, output channels first.
        bias: its bias Parameter, or None.
        overridden: whether a subclass replaced the ``construct`` of the supported class. Its linear map is then tapped where the primitive is
            called, so that whatever the subclass does before and after stays outside.
    """

    name: str
    cell: nn.Cell
    weight: Parameter
    bias: Optional[Parameter]
    overridden: bool

    kind = "abstract"
    channels_first = False

    @property
    def groups(self) -> int:
        """Number of channel groups, each with factors of its own."""
        return 1

    @property
    @abstractmethod
    def input_dimension(self) -> int:
        """Dimension of A for one group, with the homogeneous coordinate of a bias."""

    @property
    def output_dimension(self) -> int:
        """Dimension of G for one group."""
        return int(self.weight.shape[0]) // self.groups

    @property
    @abstractmethod
    def primitive(self) -> str:
        """Name of the cell's attribute that computes the linear map."""

    @abstractmethod
    def activations(self, reduce: bool) -> nn.Cell:
        """Operator from the layer's input to rows or columns."""

    @abstractmethod
    def gradients(self, reduce: bool) -> nn.Cell:
        """Operator from the output gradient to rows or columns."""

    @abstractmethod
    def second_moment(self) -> nn.Cell:
        """Operator that sums the outer products of those rows or columns."""

    def parameters(self) -> tuple[Parameter, ...]:
        """Weight, and bias where there is one."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)
