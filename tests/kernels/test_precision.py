"""The precision of the GPU's matrix products: where it is set, when it is read."""

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
# Variable, default, and a value of the variable.
PRODUCTS = {
    "covariances": ("MS_KFAC_PRECISION", "tf32", "bfloat16"),
    "preconditioning": ("MS_KFAC_PRECONDITIONING_PRECISION", "float32", "tf32"),
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_chosen", {})
    for variable, *_ in PRODUCTS.values():
        monkeypatch.delenv(variable, raising=False)
    yield


def options() -> StatisticsOptions:
    return StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)


@pytest.mark.parametrize("products", PRODUCTS)
def test_the_default_unless_it_is_set(monkeypatch: pytest.MonkeyPatch, products: str) -> None:
    variable, default, other = PRODUCTS[products]
    assert module.precision(products) == default
    monkeypatch.setenv(variable, other)
    assert module.precision(products) == other
    kernels.set_precision("float32", products=products)
    assert module.precision(products) == "float32"


def test_products_have_their_own() -> None:
    kernels.set_precision("bfloat16")
    kernels.set_precision("tf32", products="preconditioning")
    assert [module.precision(products) for products in PRODUCTS] == ["bfloat16", "tf32"]


@pytest.mark.parametrize("value", ["fp32", "", "TF32", 32, None, ["tf32"]])
def test_others_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="set_precision: value must be one of tf32, float32, bfloat16, got"):
        kernels.set_precision(value)  # type: ignore[arg-type]
    assert module.precision("covariances") == "tf32"


def test_preconditioning_has_no_bfloat16() -> None:
    with pytest.raises(ValueError, match="value must be one of float32, tf32, got 'bfloat16'"):
        kernels.set_precision("bfloat16", products="preconditioning")


def test_other_products_are_refused() -> None:
    with pytest.raises(
        ValueError, match="products must be one of covariances, preconditioning, got 'inverses'"
    ):
        kernels.set_precision("tf32", products="inverses")


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
