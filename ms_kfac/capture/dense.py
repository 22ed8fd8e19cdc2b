"""Dense layers: ``nn.Dense`` and ``mint.nn.Linear``, and their subclasses."""

from __future__ import annotations

from typing import Union

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer
from ms_kfac.ops.dense_locations import DenseActivations, DenseGradients
from ms_kfac.ops.second_moment import RowSecondMoment

_PRIMITIVES: dict[type, str] = {nn.Dense: "matmul", mint.nn.Linear: "dense"}
CLASSES = tuple(_PRIMITIVES)


class DenseLayer(Layer):
    """A layer that multiplies the last axis of its input by a weight."""

    kind = "dense"

    @property
    def input_dimension(self) -> int:
        return int(self.weight.shape[1]) + (self.bias is not None)

    @property
    def primitive(self) -> str:
        return next(name for cls, name in _PRIMITIVES.items() if isinstance(self.cell, cls))

    def activations(self, reduce: bool) -> nn.Cell:
        return DenseActivations(bias=self.bias is not None, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return DenseGradients(reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return RowSecondMoment()


def describe_dense(name: str, cell: nn.Cell) -> Union[DenseLayer, str]:
    """The layer, or why it can't be preconditioned.

    Args:
        name: the cell's name in the network.
        cell: an instance of one of ``CLASSES``.

    Returns:
        A DenseLayer. Every dense layer can be preconditioned.
    """
    base = next(cls for cls in CLASSES if isinstance(cell, cls))
    overridden = type(cell).construct is not base.construct  # type: ignore[attr-defined]
    return DenseLayer(name=name, cell=cell, weight=cell.weight, bias=cell.bias, overridden=overridden)
