"""Put a tap into a layer and take it out again; the layer stays the same object with the same Parameters."""

from __future__ import annotations

from functools import cache
from typing import Any

from mindspore import Tensor, nn

from ms_kfac.capture.layer import UNTAPPED_CLASS, Layer
from ms_kfac.capture.tap import Tap

_ATTACHED = "curvature_attached"
_TAP = "curvature_tap"


class TappedConstruct:
    """Mixed into the class of a tapped layer: the layer's own ``construct``, then the tap."""

    untapped_construct: Any
    curvature_tap: Tap

    def construct(self, x: Tensor) -> Tensor:
        y = self.untapped_construct(x)
        return self.curvature_tap(x, y)


class TappedConstructWithBatchMoments:
    """Mixed into a tapped batch normalisation that uses its batch's moments in training alone.

    In evaluation it normalises by its moving moments, which its statistics know nothing of.
    """

    untapped_construct: Any
    training: bool
    curvature_tap: Tap

    def construct(self, x: Tensor) -> Tensor:
        y = self.untapped_construct(x)
        if self.training:
            return self.curvature_tap(x, y)
        return y


class TappedConstructBeforeActivation:
    """Mixed into a tapped ``nn.Dense`` with an activation: the tap must see the linear output."""

    untapped_construct: Any
    activation: Any
    curvature_tap: Tap

    def construct(self, x: Tensor) -> Tensor:
        y = self.curvature_tap(x, self.untapped_construct(x))
        shape = y.shape
        if len(shape) == 2:
            return self.activation(y)
        # nn.Dense applies its activation to rows, before it restores the leading axes.
        rows = self.activation(y.reshape((-1, shape[-1])))
        return rows.reshape((*shape[:-1], rows.shape[-1]))


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


@cache
def _tapped_class(cls: Any, mixin: Any) -> Any:
    # A construct set on the instance would do until MindSpore compiles the layer on its own: parsing it again
    # inside a network then fails. A class of its own, under the old name, has no such trouble.
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (mixin, cls), names)


def attach(layer: Layer, tap: Tap) -> bool:
    """Let a layer's output pass through a tap.

    The layer's class becomes a subclass of what it was, under the same name; the tap goes into the instance's
    ``__dict__``, past the Cell's registries, so that names, checkpoints, ``cells()`` and casts
    of the network see the layer as it was.

    Args:
        layer: the layer to tap.
        tap: the tap.

    Returns:
        Whether an earlier tap was replaced: its optimizer gets no more statistics of this layer.
    """
    cell = layer.cell
    replaced = detach(cell)
    cls: Any = type(cell)
    if layer.overridden:
        tapped = TappedPrimitive(getattr(cell, layer.primitive), tap)
        changes: dict[str, Any] = {layer.primitive: tapped, _TAP: tap}
    else:
        changes = {"untapped_construct": cell.construct, _TAP: tap}
        mixin: Any = TappedConstruct
        if getattr(cell, "activation_flag", False):
            changes["activation_flag"] = False
            mixin = TappedConstructBeforeActivation
        elif getattr(cell, "use_batch_statistics", True) is None:
            mixin = TappedConstructWithBatchMoments
        cell.__class__ = _tapped_class(cls, mixin)
    originals = {name: cell.__dict__[name] for name in changes if name in cell.__dict__}
    cell.__dict__.update(changes)
    cell.__dict__[UNTAPPED_CLASS] = cls
    cell.__dict__[_ATTACHED] = (originals, tuple(changes))
    return replaced


def attached_tap(cell: nn.Cell) -> Any:
    """The tap that watches a layer.

    Args:
        cell: a layer.

    Returns:
        The tap, or None.
    """
    return cell.__dict__.get(_TAP)


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
    cell.__class__ = cell.__dict__.pop(UNTAPPED_CLASS)
    for name in names:
        cell.__dict__.pop(name, None)
    cell.__dict__.update(originals)
    return True
