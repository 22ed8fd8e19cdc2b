"""Put a tap into a layer and take it out again; the layer stays the same object with the same Parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import Any

from mindspore import Tensor, nn

from ms_kfac.capture.layer import UNTAPPED_CLASS, Layer
from ms_kfac.capture.tap import Tap

_ATTACHED = "curvature_attached"
_TAP = "curvature_tap"


class PlainCopies:
    """Mixed into the class of a tapped layer: its copies and pickles are untapped layers.

    A tap belongs to one layer and one optimizer; a copy must not reach that optimizer's state.
    """

    def __copy__(self) -> Any:
        """An untapped layer with the same Parameters."""
        with _untapped(self):
            copied = copy.copy(self)
            # A Cell and its shallow copy share one dictionary, where the tap is restored.
            copied.__dict__ = dict(copied.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """An untapped layer with Parameters of its own."""
        with _untapped(self):
            return copy.deepcopy(self, memo)

    def __getstate__(self) -> Any:
        """The untapped layer's state."""
        with _untapped(self):
            state = self.__getstate__()
            return _with_own_dictionary(state, self.__dict__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """How to make the untapped layer."""
        with _untapped(self):
            reduced = self.__reduce_ex__(protocol)
            if isinstance(reduced, str):
                return reduced
            create, arguments, *state = _with_own_dictionary(reduced, self.__dict__)
            if getattr(create, "__name__", "") == "__newobj__":
                # pickle accepts __newobj__ for the object's present class only.
                create = arguments[0].__new__
            return (create, arguments, *state)


def _with_own_dictionary(value: Any, dictionary: dict[str, Any]) -> Any:
    # A Cell's state holds its dictionary itself, where the tap is restored before anything is copied.
    if value is dictionary:
        return dict(dictionary)
    if type(value) is tuple:
        return tuple(_with_own_dictionary(item, dictionary) for item in value)
    return value


class TappedConstruct(PlainCopies):
    """The layer's own ``construct``, then the tap."""

    untapped_construct: Any
    curvature_tap: Tap

    def construct(self, x: Tensor) -> Tensor:
        y = self.untapped_construct(x)
        return self.curvature_tap(x, y)


class TappedConstructWithBatchMoments(PlainCopies):
    """For a batch normalisation that uses its batch's moments in training alone.

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


class TappedConstructBeforeActivation(PlainCopies):
    """For an ``nn.Dense`` with an activation: the tap must see the linear output."""

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
    """Stands for the primitive of a layer that is tapped there.

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
    of the network see the layer as it was. Copies and pickles of the layer have no tap.

    Args:
        layer: the layer to tap.
        tap: the tap.

    Returns:
        Whether an earlier tap was replaced: its optimizer gets no more statistics of this layer.
    """
    cell = layer.cell
    replaced = detach(cell)
    cls: Any = type(cell)
    if layer.tapped_primitive:
        tapped = TappedPrimitive(getattr(cell, layer.tapped_primitive), tap)
        changes: dict[str, Any] = {layer.tapped_primitive: tapped, _TAP: tap}
        # The class stays: MindSpore 2.10 compiles `super()` as the parent of the instance's class, which has
        # to be the class that the user wrote. copy and pickle look these two up on the instance.
        for name in ("__deepcopy__", "__getstate__"):
            changes[name] = MethodType(getattr(PlainCopies, name), cell)
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


@contextmanager
def _untapped(cell: Any) -> Iterator[None]:
    cls, names = type(cell), (_ATTACHED, UNTAPPED_CLASS, *cell.__dict__[_ATTACHED][1])
    tapped = {name: cell.__dict__[name] for name in names}
    detach(cell)
    try:
        yield
    finally:
        cell.__class__ = cls
        cell.__dict__.update(tapped)
