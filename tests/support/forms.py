"""Which form operators take: another library than the process's own, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from ms_kfac.curvature.block import layer_statistics
from ms_kfac.kernels import backward_operator, callbacks, operator
from ms_kfac.ops.statistics.skfac_statistics import _shared_graph
from tests.support.native import has_native, needs_native

NO_LIBRARY = SimpleNamespace(handle=None)


def native_and_fallback(name: str) -> Any:
    """Parametrization of `native` by both forms of an operator; without a kernel one is skipped."""
    forms = [pytest.param(True, marks=needs_native(name), id="native"), pytest.param(False, id="fallback")]
    return pytest.mark.parametrize("native", forms)


def forms_of(name: str) -> tuple[bool, ...]:
    """Values of `native` for loops over the forms that there are."""
    return (True, False) if has_native(name) else (False,)


def forget_operators() -> None:
    """Layers of one geometry share their operators: made for another library, they must go."""
    for shared in (layer_statistics, _shared_graph):
        shared.cache_clear()


@contextmanager
def operators_of(library: Any, because: Callable[[str, str], str]) -> Iterator[None]:
    """Operators made meanwhile come from that library, or are fallbacks where ``because`` says why."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "fallback_reason", because)
        for module in (operator, backward_operator, callbacks):
            patch.setattr(module, "present_library", lambda: library)
        forget_operators()
        try:
            yield
        finally:
            forget_operators()


@contextmanager
def fallback() -> Iterator[None]:
    """Operators that are made meanwhile are fallbacks."""
    with operators_of(NO_LIBRARY, lambda name, device: "as the test says"):
        yield
