"""Attach a tap to a layer and detach it. The layer stays the same object with the same Parameters."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from types import MethodType
from typing import Any

from mindspore import Tensor, nn

from ms_kfac.capture.layer import TAP, UNTAPPED_CLASS, Layer
from ms_kfac.capture.tap import NoTap, Tap

_ATTACHED = "curvature_attached"


class PlainCopies:
    """Mixin of tapped layers: copies and pickles of the layer are untapped.

    A tap belongs to one layer and one optimizer; a copy must not reach that optimizer's state.
    """

    def __copy__(self) -> Any:
        """Copy the layer, untapped, with the same Parameters."""
        with _untapped(self):
            copied = copy.copy(self)
            # A Cell and its shallow copy share one __dict__, and leaving the context restores the tap in it.
            copied.__dict__ = dict(copied.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy the layer, untapped, with new Parameters."""
        with _untapped(self):
            return copy.deepcopy(self, memo)

    def __getstate__(self) -> Any:
        """State of the untapped layer."""
        with _untapped(self):
            state = self.__getstate__()
            return _with_own_dictionary(state, self.__dict__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Reduce the layer to an untapped one."""
        with _untapped(self):
            reduced = self.__reduce_ex__(protocol)
            if isinstance(reduced, str):
                return reduced
            create, arguments, *state = _with_own_dictionary(reduced, self.__dict__)
            if getattr(create, "__name__", "") == "__newobj__":
                # pickle accepts __newobj__ only for the current class of the object.
                create = arguments[0].__new__
            return (create, arguments, *state)


def _with_own_dictionary(value: Any, dictionary: dict[str, Any]) -> Any:
    # A Cell's state holds its __dict__ itself, and the tap is back in it before pickle copies anything.
    if value is dictionary:
        return dict(dictionary)
    if type(value) is tuple:
        return tuple(_with_own_dictionary(item, dictionary) for item in value)
    return value


class TappedConstruct(PlainCopies):
    """Calls the original ``construct``, then the tap."""

    untapped_construct: Any
    curvature_tap: Tap

    def construct(self, x: Tensor) -> Tensor:
        y = self.untapped_construct(x)
        return self.curvature_tap(x, y)


class TappedConstructInTraining(PlainCopies):
    """For a batch normalisation that uses the moments of the batch only in training.

    In evaluation it normalises with moving moments, for which the statistics would be wrong.
    """

    TAPS = (TAP,)
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
    """Replaces a primitive of a layer: calls the primitive, then the tap.

    Args:
        primitive: the original primitive.
        tap: the tap.
    """

    def __init__(self, primitive: Any, tap: Tap) -> None:
        super().__init__(auto_prefix=False)
        self.primitive = primitive
        self.__dict__["tap"] = tap

    def construct(self, x: Tensor, *arguments: Any) -> Tensor:
        return self.tap(x, self.primitive(x, *arguments))


@cache
def _tapped_class(cls: Any, mixin: Any) -> Any:
    # A construct set on the instance works until MindSpore compiles the layer alone: parsing the layer again
    # inside a network then fails. A subclass with the same name has no such problem.
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (mixin, cls), names)


def attach(layers: Sequence[Layer], taps: Sequence[Tap]) -> list[str]:
    """Route the outputs of layers through taps.

    A layer's class becomes a subclass of its previous class, with the same name. The tap goes into the
    instance's ``__dict__`` and not into the Cell's registries. So names, checkpoints, ``cells()`` and casts
    of the network do not change. Copies and pickles of the layer have no tap.

    Args:
        layers: the layers to tap; layers of one cell are adjacent.
        taps: one tap per layer.

    Returns:
        Names of the layers whose earlier tap was replaced. The optimizer of that tap gets no further
        statistics of these layers.
    """
    replaced = []
    for _, group in groupby(zip(layers, taps), key=lambda pair: id(pair[0].cell)):
        pairs = list(group)
        if _attach_to_cell([layer for layer, _ in pairs], {layer.tap_name: tap for layer, tap in pairs}):
            replaced += [layer.name for layer, _ in pairs]
    return replaced


def _attach_to_cell(layers: Sequence[Layer], taps: dict[str, Tap]) -> bool:
    layer = layers[0]
    cell = layer.cell
    replaced = detach(cell)
    cls: Any = type(cell)
    changes: dict[str, Any] = {**taps, "untapped_construct": cell.construct}
    if layer.router is not None:
        for name in layer.router.TAPS:
            changes.setdefault(name, NoTap())
        cell.__class__ = _tapped_class(cls, layer.router)
    elif layer.tapped_primitive:
        changes[layer.tapped_primitive] = TappedPrimitive(getattr(cell, layer.tapped_primitive), taps[TAP])
        # The class stays: MindSpore 2.10 compiles `super()` as the parent of the instance's class, so that
        # class must be the user's. copy and pickle look up these two methods on the instance.
        for name in ("__deepcopy__", "__getstate__"):
            changes[name] = MethodType(getattr(PlainCopies, name), cell)
    else:
        mixin: Any = TappedConstruct
        if getattr(cell, "activation_flag", False):
            changes["activation_flag"] = False
            mixin = TappedConstructBeforeActivation
        cell.__class__ = _tapped_class(cls, mixin)
    originals = {name: cell.__dict__[name] for name in changes if name in cell.__dict__}
    cell.__dict__.update(changes)
    cell.__dict__[UNTAPPED_CLASS] = cls
    cell.__dict__[_ATTACHED] = (originals, tuple(changes))
    _recompute_present_construct(cell, layer.name)
    return replaced


def attached_tap(layer: Layer) -> Any:
    """Return the tap of a layer.

    Args:
        layer: a layer.

    Returns:
        The tap, or None if the layer is untapped.
    """
    return layer.cell.__dict__.get(layer.tap_name)


def detach(cell: nn.Cell) -> bool:
    """Remove the tap of a layer, if it has one.

    Args:
        cell: a layer.

    Returns:
        Whether the layer had a tap.
    """
    if _ATTACHED not in cell.__dict__:
        return False
    originals, names = cell.__dict__.pop(_ATTACHED)
    cell.__class__ = cell.__dict__.pop(UNTAPPED_CLASS)
    for name in names:
        cell.__dict__.pop(name, None)
    cell.__dict__.update(originals)
    _recompute_present_construct(cell, type(cell).__name__)
    return True


def _recompute_present_construct(cell: Any, name: str) -> None:
    # In PyNative mode, recompute() keeps the construct that the layer has when it is called. It would bypass
    # a tap that comes later, or call one that is gone.
    recomputed = getattr(cell, "_recompute_cell", None)
    if recomputed is None:
        return
    kept = inspect.getclosurevars(recomputed).nonlocals if inspect.isfunction(recomputed) else {}
    if hasattr(recomputed, "wrap_cell"):
        recomputed.wrap_cell.function = cell.construct
    elif "block" in kept:
        place = recomputed.__code__.co_freevars.index("block")
        recomputed.__closure__[place].cell_contents = cell.construct
    else:
        raise TypeError(
            f"{name}: recompute() must be called after the optimizer is made, as this version of MindSpore "
            "recomputes the layer without its tap"
        )


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
        _recompute_present_construct(cell, cls.__name__)
