"""Refreshes name the arrays of a layer as the libraries do, and hand them over in the libraries' order."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_kfac.kernels.library import library
from ms_kfac.kernels.native_library import NativeLibrary
from ms_kfac.kernels.registry import REGISTRY
from ms_kfac.ops.refresh.block_split_refresh import BlockSplitRefresh
from ms_kfac.ops.refresh.eigenbasis_refresh import EigenbasisRefresh
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh
from ms_kfac.ops.refresh.sherman_morrison_refresh import ShermanMorrisonRefresh
from ms_kfac.ops.refresh.skfac_refresh import SKFACRefresh
from ms_kfac.ops.refresh.trace_restricted_refresh import TraceRestrictedRefresh
from tests.support.native import needs_native
from tests.support.refreshes import parameter

pytestmark = needs_native("kronecker_refresh")

REFRESHES: dict[str, type[LayerRefresh]] = {
    "kronecker_refresh": KroneckerRefresh,
    "block_split_refresh": BlockSplitRefresh,
    "trace_restricted_refresh": TraceRestrictedRefresh,
    "sherman_morrison_refresh": ShermanMorrisonRefresh,
    "skfac_refresh": SKFACRefresh,
    "eigenbasis_refresh": EigenbasisRefresh,
}


def test_every_refresh_of_the_catalogue_is_looked_at() -> None:
    assert set(REFRESHES) == {name for name in REGISTRY if name.endswith("_refresh")}


@pytest.mark.parametrize("name", REFRESHES)
def test_names_are_those_of_the_library(name: str) -> None:
    layout = library("CPU").refresh_layout(REGISTRY[name])
    assert sorted(REFRESHES[name].ARRAYS) == sorted(layout)


def test_arrays_go_to_the_kernel_in_the_library_s_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order of Python's own that differs from the library's still refreshes the right arrays."""
    order = ["G_inverse", "weights", "A_sum", "A_inverse", "G_sum"]
    monkeypatch.setattr(KroneckerRefresh, "ARRAYS", tuple(order))
    values = {"A_sum": 8 * np.eye(2), "G_sum": 8 * np.eye(3), "weights": np.array([2.0, 2.0])}
    values.update({"A_inverse": np.zeros((2, 2)), "G_inverse": np.zeros((3, 3))})
    arrays = {name: parameter(name, values[name]) for name in order}
    KroneckerRefresh("layer", list(arrays.values()))(Tensor(1.0, ms.float32))
    # 4 I damped by 1: both traces are the same.
    for name, size in (("A_inverse", 2), ("G_inverse", 3)):
        np.testing.assert_allclose(arrays[name].asnumpy(), np.eye(size) / 5, rtol=1e-6)


def test_a_missing_array_at_the_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Sherman-Morrison's traces, which are there with `rescale` alone."""
    layout = ["A_sum", "weights", "G_sum", "A_inverse", "G_inverse", "scale"]
    monkeypatch.setattr(NativeLibrary, "refresh_layout", lambda self, function: layout)
    arrays = [parameter(name, np.zeros(1)) for name in KroneckerRefresh.ARRAYS]

    class Refresh(LayerRefresh):
        ARRAYS = (*KroneckerRefresh.ARRAYS, "scale")

    part = Refresh("kronecker_refresh", "layer", arrays).spec
    assert part is not None
    assert [array.name for array in part.arrays] == layout[:-1]
