"""The precision of the GPU's covariance products: where it is set, when it is read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from ms_kfac import kernels
from ms_kfac.capture.dense import DenseOperators
from ms_kfac.curvature.block import layer_statistics
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from ms_kfac.ops.statistics.trace_restricted_statistics import TraceRestrictedStatistics
from tests.support.native import needs_native

module = importlib.import_module("ms_kfac.kernels.precision")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_chosen", None)
    monkeypatch.delenv("MS_KFAC_PRECISION", raising=False)
    yield


def options() -> StatisticsOptions:
    return StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)


def test_tf32_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.precision() == "tf32"
    monkeypatch.setenv("MS_KFAC_PRECISION", "bfloat16")
    assert module.precision() == "bfloat16"
    kernels.set_precision("float32")
    assert module.precision() == "float32"


@pytest.mark.parametrize("value", ["fp32", "", "TF32", 32, None, ["tf32"]])
def test_others_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="set_precision: value must be one of tf32, float32, bfloat16, got"):
        kernels.set_precision(value)  # type: ignore[arg-type]
    assert module.precision() == "tf32"


def test_others_in_the_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_KFAC_PRECISION", "half")
    with pytest.raises(ValueError, match="MS_KFAC_PRECISION must be one of tf32, float32, bfloat16"):
        options()


@needs_native("kronecker_statistics")
@pytest.mark.parametrize("kind", [KroneckerStatistics, TraceRestrictedStatistics])
def test_operators_keep_what_was_set_when_they_were_made(kind: Any) -> None:
    operators = DenseOperators(bias=True)
    first = layer_statistics(kind, operators, options())
    kernels.set_precision("float32")
    second = layer_statistics(kind, operators, options())
    found = [operator.kernel.attrs["precision"] for operator in (first, second)]
    assert found == ["tf32", "float32"]
