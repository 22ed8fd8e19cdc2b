"""Description of a layer for the curvature blocks, independent of the layer's class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from mindspore import nn

from ms_kfac.ops.step.parameter_rows import LayerParameter

UNTAPPED_CLASS = "untapped_class"
TAP = "curvature_tap"
# Kind of a Parameter outside all layers.
OTHER = "other"


def overrides_construct(cell: nn.Cell, base: Any) -> bool:
    """Whether a subclass or the instance overrides the ``construct`` of a supported class.

    Args:
        cell: a layer, tapped or not.
        base: the supported class.

    Returns:
        Whether the ``construct`` of the layer is not that of ``base``.
    """
    return "construct" in cell.__dict__ or untapped_class(cell).construct is not base.construct


def untapped_class(cell: nn.Cell) -> Any:
    """Return the class of a cell without its tap.

    Args:
        cell: a layer, tapped or not.

    Returns:
        The class with which the user created the cell.
    """
    return cell.__dict__.get(UNTAPPED_CLASS, type(cell))


@dataclass(frozen=True)
class LayerOperators(ABC):
    """Operators that turn a layer's input and output gradient into rows or columns.

    All layers of one geometry have equal operators.

    Attributes:
        bias: whether activations have a homogeneous coordinate.
    """

    bias: bool

    # Whether the operators give columns (N, [g,] d, T) instead of rows (N T, d).
    channels_first = False
    # Whether the locations of a sample are axes of the layer's input, as in a transposed convolution, instead
    # of its output.
    locates_inputs = False
    # Number of axes of an input without a batch axis: an input with no more axes is one sample.
    feature_axes = 1

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Drop the native kernel of a base class if a subclass has other operators and no own geometry."""
        super().__init_subclass__(**arguments)
        if {"activations", "gradients"} & vars(cls).keys() and "native_geometry" not in vars(cls):
            cls.native_geometry = LayerOperators.native_geometry  # type: ignore[method-assign]

    @property
    def channels_last(self) -> bool:
        """Whether the last axis of input and output holds channels: by default, if operators give rows."""
        return not self.channels_first

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
        """Operator that sums the outer products of these rows or columns."""

    @abstractmethod
    def projections(self) -> nn.Cell:
        """Operator from the input and the output gradient to the vectors u and v of the capture check."""

    def native_geometry(self) -> dict[str, Any] | None:
        """Attributes of the native kernel that replaces these operators; None if there is none.

        Returns:
            The attributes. None for a subclass that overrides ``activations`` or ``gradients`` and not this.
        """
        return None


@dataclass(frozen=True)
class Layer:
    """A layer that can be preconditioned.

    Attributes:
        name: the cell's name in the network ("layer1.0.conv2").
        kind: selects the curvature block: "dense", "convolution", "embedding", "normalization", or any other
            word. "other" is reserved for Parameters outside all layers.
        cell: the layer itself.
        weight: the weight Parameter, or some of its rows, output channels first. For an embedding, the table,
            with one row per id. For a normalisation, gamma.
        bias: the bias Parameter, or some of its rows, or None. For a normalisation, beta.
        operators: how inputs and output gradients become rows or columns.
        groups: number of channel groups; each has its own factors. Default: 1.
        input_first: whether the weight has input channels first, as that of a transposed convolution. Such a
            layer has no bias. Default: False.
        tapped_primitive: name of the cell's attribute that computes the linear map, if the tap is at the call
            of that attribute. The tap then ignores what the cell computes before and after the call, as in a
            subclass that overrides ``construct``. Empty if the tap uses the layer's input and output.
            Default: "".
        sample_axis: axis of the samples in the layer's input and output, 0 or 1. Default: 0.
        router: mixin for the cell's class, whose ``construct`` calls the cell's taps where the layer's output
            is not that of the cell. Its ``TAPS`` are the names of the taps. All layers of a cell have the
            same mixin. Default: None.
        tap_name: attribute of the cell that holds the tap. Default: "curvature_tap".
    """

    name: str
    kind: str
    cell: nn.Cell
    weight: LayerParameter
    bias: LayerParameter | None
    operators: LayerOperators
    groups: int = 1
    input_first: bool = False
    tapped_primitive: str = ""
    sample_axis: int = 0
    router: Any = None
    tap_name: str = TAP

    @property
    def input_dimension(self) -> int:
        """Dimension of A for one group, including the homogeneous coordinate of a bias."""
        dimension = self._rows if self.input_first else self._columns
        return dimension + (self.bias is not None)

    @property
    def output_dimension(self) -> int:
        """Dimension of G for one group."""
        return self._columns if self.input_first else self._rows

    @property
    def _rows(self) -> int:
        return int(self.weight.shape[0]) // self.groups if self.weight.ndim > 0 else 1

    @property
    def _columns(self) -> int:
        return math.prod(int(size) for size in self.weight.shape[1:])

    def parameters(self) -> tuple[LayerParameter, ...]:
        """Weight, and bias if the layer has one: Parameters, or rows of Parameters."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)
