"""Inverses of all layers in one call, native and fallback, against float64; and what they leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Parameter, Tensor

import ms_kfac
from ms_kfac.kernels.library import library
from ms_kfac.ops.refresh import layer_refresh
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.refresh.layer_refresh import fused_refresh
from tests.support.native import needs_native
from tests.support.refreshes import Joint, parameter

native_only = needs_native("kronecker_refresh")

Shape = tuple[int, int, int]
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))


def layer(name: str, shape: Shape, *, count: float = 3.0, seed: int = 0) -> tuple[Parameter, ...]:
    """Sums of a few outer products, of a rank below the dimension, and inverses that are none."""
    dim_A, dim_G, groups = shape
    rng = np.random.default_rng([dim_A, dim_G, groups, seed])
    arrays = []
    for key, dim, scale in (("A", dim_A, 1.0), ("G", dim_G, 0.01)):
        rows = scale * rng.standard_normal((groups, max(dim // 2, 1), dim))
        total = np.swapaxes(rows, -1, -2) @ rows * (count > 0)
        arrays += [parameter(f"{name}.{key}_sum", total if groups > 1 else total[0])]
    # G sums over twice the locations.
    arrays += [parameter(f"{name}.weights", [count, 2.0 * count])]
    for key, dim in (("A", dim_A), ("G", dim_G)):
        value = np.full((groups, dim, dim) if groups > 1 else (dim, dim), 7.0)
        arrays += [parameter(f"{name}.{key}_inverse", value)]
    return tuple(arrays)


def expected_inverses(arrays: Sequence[Parameter], damping: float, splits: bool = True) -> tuple[Any, Any]:
    A_sum, G_sum, weights = (np.asarray(array.asnumpy(), np.float64) for array in arrays[:3])
    A_count, G_count = weights
    A, G = A_sum / max(A_count, 1e-30), G_sum / max(G_count, 1e-30)
    eye_A, eye_G = np.eye(A.shape[-1]), np.eye(G.shape[-1])
    if A_count == 0:
        return A + eye_A, G + eye_G
    ratio = np.trace(A, axis1=-2, axis2=-1) / A.shape[-1] / np.trace(G, axis1=-2, axis2=-1) * G.shape[-1]
    pi = np.sqrt(ratio)[..., None, None] if splits else 1.0
    root = np.sqrt(damping)
    return np.linalg.inv(A + root * pi * eye_A), np.linalg.inv(G + root / pi * eye_G)


def assert_close(found: Parameter, expected: Any) -> None:
    # The damped factors' condition numbers stay under 100 here: that many times float32's 6e-8.
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=0, atol=1e-5 * largest)


@settings(max_examples=15)
@given(shapes, st.floats(0.5, 20.0), st.booleans())
@pytest.mark.parametrize("native", [pytest.param(True, marks=native_only), False], ids=["native", "fallback"])
def test_one_layer_against_float64(native: bool, shape: Shape, count: float, splits: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_refresh, "is_native", lambda operator: native)
        arrays = layer("layer", shape, count=count)
        refresh = KroneckerRefresh("layer", arrays, splits=splits)
        assert (refresh.spec is not None) == native
        refresh(Tensor(0.05, ms.float32))
    for found, expected in zip(arrays[3:], expected_inverses(arrays, 0.05, splits)):
        assert_close(found, expected)
        if native:
            np.testing.assert_array_equal(found.asnumpy(), np.swapaxes(found.asnumpy(), -1, -2))


@native_only
@pytest.mark.parametrize("due", [1, 0, [1, 0, 1], [0, 1, 0]], ids=str)
def test_layers_that_are_due_in_one_call(mode: int, due: Any) -> None:
    layers = [layer("a", (70, 33, 1)), layer("b", (20, 65, 1)), layer("c", (12, 9, 4))]
    joint = Joint([KroneckerRefresh(f"layer {i}", arrays) for i, arrays in enumerate(layers)])
    joint(Tensor(due, ms.int32), Tensor(0.02, ms.float32))
    for wanted, arrays in zip(np.broadcast_to(due, 3), layers):
        for found, expected in zip(arrays[3:], expected_inverses(arrays, 0.02)):
            if wanted:
                assert_close(found, expected)
            else:
                assert (found.asnumpy() == 7.0).all()


@native_only
def test_a_large_factor_on_all_threads() -> None:
    # Large enough to be inverted by OpenBLAS's own threads while the others wait.
    arrays = layer("large", (600, 5, 1))
    KroneckerRefresh("large", arrays)(Tensor(0.05, ms.float32))
    for found, expected in zip(arrays[3:], expected_inverses(arrays, 0.05)):
        assert_close(found, expected)


@pytest.mark.parametrize("native", [pytest.param(True, marks=native_only), False], ids=["native", "fallback"])
@pytest.mark.parametrize("groups", [1, 2])
def test_identities_before_statistics(mode: int, native: bool, groups: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(layer_refresh, "is_native", lambda operator: native)
    arrays = layer("new", (6, 4, groups), count=0.0)
    KroneckerRefresh("new", arrays)(Tensor(0.05, ms.float32))
    for found, dim in zip(arrays[3:], (6, 4)):
        np.testing.assert_array_equal(found.asnumpy(), np.broadcast_to(np.eye(dim), found.shape))


@native_only
def test_more_damping_where_there_is_too_little() -> None:
    arrays = layer("indefinite", (3, 2, 1), count=1.0)
    arrays[0].set_data(Tensor(np.diag([1.0, 1.0, -0.01]), ms.float32))
    KroneckerRefresh("indefinite", arrays)(Tensor(1e-9, ms.float32))
    inverse = arrays[3].asnumpy()
    assert np.linalg.eigvalsh(inverse).min() > 0
    assert "indefinite: factor A is not positive definite with damping" in ms_kfac.kernels.status()


@native_only
def test_nan_is_refused_by_name() -> None:
    arrays = layer("broken", (3, 2, 1))
    arrays[0].set_data(Tensor(np.full((3, 3), np.nan), ms.float32))
    # PyNative mode raises too, but at some later call.
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with pytest.raises(RuntimeError):
            KroneckerRefresh("broken", arrays)(Tensor(0.1, ms.float32))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert "broken: factor A" in library("CPU").last_error()


@native_only
def test_parts_of_different_operators_are_refused() -> None:
    with pytest.raises(ValueError, match="one operator"):
        fused_refresh([])
