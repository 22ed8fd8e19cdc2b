"""Put a tap into a layer and take it out again; the layer stays the same object with the same Parameters."""

from __future__ import annotations

from types import MethodType
from typing import Any

from mindspore import Tensor, nn

from ms_kfac.capture.layer import Layer
from ms_kfac.capture.tap import Tap

_ATTACHED = "curvature_detach"


def tapped_construct(self: Any, x: Tensor) -> Tensor:
    """``construct`` of a tapped layer: the layer's own, then the tap."""
    y = self.untapped_construct(x)
    return self.curvature_tap(x, y)


def tapped_construct_before_activation(self: Any, x: Tensor) -> Tensor:
    """``construct`` of a tapped ``nn.Dense`` with an activation: the tap must see the linear output."""
    y = self.untapped_construct(x)
    return self.activation(self.curvature_tap(x, y))


class TappedPrimitive(nn.Cell):
    """Stands for the primitive of a layer whose subclass overrides ``construct``.

    Args:
        primitive: the layer's own.
        tap: what watches it.
    """

    def __init__(self, primitive: Any, tap: Tap) -> None:
        super().__init__(auto_prefix=False)
        self.primitive = primitive
        self.__dict__["tap"] = tap

    def construct(self, x: Tensor, *arguments: Any) -> Tensor:
        return self.tap(x, self.primitive(x, *arguments))


def attach(layer: Layer, tap: Tap) -> bool:
    """Let a layer's output pass through a tap.

    The changes go into the instance's ``__dict__``, past the Cell's registries, so that names, checkpoints,
    ``cells()`` and mixed-precision casts of the network see the layer as it was.

    Args:
        layer: the layer to tap.
        tap: the tap.

    Returns:
        Whether an earlier tap was replaced: its optimizer gets no statistics of this layer any more.
    """
    cell = layer.cell
    replaced = detach(cell)
    before = dict(cell.__dict__)
    if layer.overridden:
        changes: dict[str, Any] = {layer.primitive: TappedPrimitive(getattr(cell, layer.primitive), tap)}
    else:
        changes = {"untapped_construct": cell.construct, "curvature_tap": tap}
        if getattr(cell, "activation_flag", False):
            changes["activation_flag"] = False
            changes["construct"] = MethodType(tapped_construct_before_activation, cell)
        else:
            changes["construct"] = MethodType(tapped_construct, cell)
    changes[_ATTACHED] = {name: before[name] for name in changes if name in before}, tuple(changes)
    cell.__dict__.update(changes)
    return replaced


def detach(cell: nn.Cell) -> bool:
    """Take a tap out, if there is one.

    Args:
        cell: a layer.

    Returns:
        Whether there was one.
    """
    if _ATTACHED not in cell.__dict__:
        return False
    originals, names = cell.__dict__.pop(_ATTACHED)
    for name in names:
        cell.__dict__.pop(name, None)
    cell.__dict__.update(originals)
    return True
