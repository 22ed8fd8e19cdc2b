"""A compiled tap skips its operator and runs the kernel directly, unless the operator does more."""

from __future__ import annotations

from typing import Any

import pytest

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from tests.support.native import needs_native

pytestmark = needs_native("kronecker_statistics")


def operator(kind: Any) -> Any:
    operators = DenseOperators(bias=True)
    options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
    return kind(operators, options)


class Composed(KroneckerStatistics):
    def construct(self, *inputs: Any) -> bool:
        return True


class Renamed(KroneckerStatistics):
    pass


class WithItsOwnKernel(KroneckerStatistics):
    operator = "kronecker_statistics"

    def construct(self, *inputs: Any) -> bool:
        return True


@pytest.mark.parametrize("kind", [KroneckerStatistics, Renamed, WithItsOwnKernel])
def test_the_kernel_of_the_class_that_names_it(kind: Any) -> None:
    statistics = operator(kind)
    assert statistics.native
    assert statistics.within_graph() is statistics.kernel


def test_construct_without_a_kernel_uses_the_fallback() -> None:
    statistics = operator(Composed)
    assert not statistics.native
    assert statistics.within_graph() is statistics


def test_subclass_without_a_construct_inherits_the_fallback() -> None:
    class Below(Composed):
        pass

    statistics = operator(Below)
    assert not statistics.native
    assert statistics.within_graph() is statistics
