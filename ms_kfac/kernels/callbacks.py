"""Handles of Python functions that kernels call."""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Callable, Generic, TypeVar

from ms_kfac.kernels.operator import present_library

Function = TypeVar("Function", bound=Callable[..., Any])

_numbers = itertools.count(1)
_handles: weakref.WeakValueDictionary[int, Handle[Any]] = weakref.WeakValueDictionary()


class Handle(Generic[Function]):
    """Registers a function under a number that kernels use, for as long as this object exists.

    Args:
        function: the function to register. Any thread may call it.
        setter: the library's function that takes the C callback of this kind of function.
        callback: the C callback. It gets the number, and is never freed: libraries hold its address.

    Attributes:
        number: the positive number of the function.
    """

    def __init__(self, function: Function, setter: str, callback: Any) -> None:
        self.function = function
        self.number = next(_numbers)
        _handles[self.number] = self
        library = present_library().handle
        if library is not None:
            getattr(library, setter)(callback)


def registered(number: int) -> Any:
    """Get the function of a number.

    Args:
        number: the number that a kernel passes.

    Returns:
        The function. None if its handle is gone: the last step of an optimizer that no longer exists may
        still run.
    """
    handle = _handles.get(number)
    return None if handle is None else handle.function
