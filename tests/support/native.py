"""Tests of native kernels: skipped where there are none, failing where they are required."""

from __future__ import annotations

import pytest

from ms_kfac.kernels.operator import is_native
from ms_kfac.kernels.requirement import REQUIRE, native_is_required


def has_native(operator: str) -> bool:
    """Whether an operator has a native kernel here; having none is an error where kernels are required."""
    native = is_native(operator)
    if not native and native_is_required():
        raise RuntimeError(f"{REQUIRE}=1, but {operator} has no native kernel here")
    return native


def needs_native(operator: str) -> pytest.MarkDecorator:
    """Marks tests that need an operator's native kernel."""
    return pytest.mark.skipif(not has_native(operator), reason=f"{operator} has no native kernel here")


def skip_without_native(operator: str) -> None:
    """Skips the running test where an operator has no native kernel."""
    if not has_native(operator):
        pytest.skip(f"{operator} has no native kernel here")
