"""Dense layers: ``nn.Dense`` and ``mint.nn.Linear``, and their subclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mindspore import mint, nn

from ms_kfac.capture.layer import Layer, LayerOperators, overrides_construct
from ms_kfac.ops.dense_locations import DenseActivations, DenseGradients
from ms_kfac.ops.second_moment import RowSecondMoment

_PRIMITIVES: dict[Any, str] = {nn.Dense: "matmul", mint.nn.Linear: "dense"}
CLASSES = tuple(_PRIMITIVES)


@dataclass(frozen=True)
class DenseOperators(LayerOperators):
    """Rows of a layer that multiplies the last axis of its input."""

    def activations(self, reduce: bool) -> nn.Cell:
        return DenseActivations(bias=self.bias, reduce=reduce)

    def gradients(self, reduce: bool) -> nn.Cell:
        return DenseGradients(reduce=reduce)

    def second_moment(self) -> nn.Cell:
        return RowSecondMoment()

    def native_geometry(self) -> dict[str, Any] | None:
        return {"convolution": False, "bias": self.bias}


def describe_dense(name: str, cell: nn.Cell) -> Layer | str:
    """The layer, or why it can't be preconditioned.

    Args:
        name: the cell's name in the network.
        cell: an instance of one of ``CLASSES``.

    Returns:
        The layer. Every dense layer can be preconditioned.
    """
    base = next(cls for cls in CLASSES if isinstance(cell, cls))
    return Layer(
        name=name,
        kind="dense",
        cell=cell,
        weight=cell.weight,
        bias=cell.bias,
        groups=1,
        operators=DenseOperators(bias=cell.bias is not None),
        primitive=_PRIMITIVES[base],
        overridden=overrides_construct(cell, base),
    )
