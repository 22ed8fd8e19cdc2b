"""A compiled tap calls a kernel past its operator, unless a subclass has its own construct."""

from __future__ import annotations

from typing import Any

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.capture.tap import directly
from ms_kfac.kernels.operator import is_native
from ms_kfac.ops.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics import StatisticsOptions


def operator(kind: Any) -> Any:
    operators = DenseOperators(bias=True)
    options = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
    return kind(
        *(operators.activations(False), operators.gradients(False), operators.second_moment()),
        channels_first=False,
        options=options,
        geometry=operators.native_geometry(),
    )


class Watched(KroneckerStatistics):
    def construct(self, *inputs: Any) -> bool:
        return True


def test_the_kernel_where_the_operator_adds_nothing() -> None:
    statistics = operator(KroneckerStatistics)
    expected = statistics.kernel if is_native("kronecker_statistics") else statistics
    assert directly(statistics) is expected


def test_the_operator_where_a_subclass_has_its_own_construct() -> None:
    statistics = operator(Watched)
    assert directly(statistics) is statistics
