"""Which form operators take: another library than the process's own, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import pytest

from ms_kfac.curvature.block import layer_statistics
from ms_kfac.curvature.eigenbasis import eigenbasis_statistics
from ms_kfac.kernels import operator
from ms_kfac.ops.swift_statistics import _shared_graph


def forget_operators() -> None:
    """Layers of one geometry share their operators: made for another library, they must go."""
    for shared in (layer_statistics, eigenbasis_statistics, _shared_graph):
        shared.cache_clear()


@contextmanager
def operators_of(library: Any, because: Callable[[str, str], str]) -> Iterator[None]:
    """Operators made meanwhile come from that library, or are composed where ``because`` says why."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "composed_because", because)
        patch.setattr(operator, "library", lambda device: library)
        forget_operators()
        try:
            yield
        finally:
            forget_operators()


@contextmanager
def composed() -> Iterator[None]:
    """Operators that are made meanwhile are composed."""
    with operators_of(None, lambda name, device: "as the test says"):
        yield
