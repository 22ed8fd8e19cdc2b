"""Arrays of a layer for the operators that refresh inverses, and an operator's two forms side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn

from ms_kfac.ops.refresh import layer_refresh
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh, fused_refresh


def parameter(name: str, value: Any) -> Parameter:
    """A float32 Parameter."""
    return Parameter(Tensor(np.asarray(value, np.float32)), name=name, requires_grad=False)


def gram_sum(dimension: int, groups: int, rng: np.random.Generator) -> Any:
    """A sum of outer products of a rank below the dimension, with a leading axis where there are groups."""
    rows = rng.standard_normal((groups, max(dimension // 2, 1), dimension))
    total = np.swapaxes(rows, -1, -2) @ rows
    return total if groups > 1 else total[0]


class Joint(nn.Cell):
    """One native call for all layers."""

    def __init__(self, layers: Sequence[LayerRefresh]) -> None:
        super().__init__(auto_prefix=False)
        parts = [refresh.spec for refresh in layers if refresh.spec is not None]
        self.kernel = fused_refresh(parts)
        self.arrays = ParameterTuple([array for part in parts for array in part.arrays])

    def construct(self, due: Tensor, damping: Tensor) -> bool:
        self.kernel(due, damping, *self.arrays)
        return True


def refreshed(
    native: bool, values: Sequence[Any], create: Callable[[list[Parameter]], LayerRefresh], damping: float
) -> list[Any]:
    """What one form of an operator leaves in Parameters that start with these values."""
    arrays = [parameter(f"array{index}", value) for index, value in enumerate(values)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_refresh, "is_native", lambda operator: native)
        refresh = create(arrays)
    assert (refresh.spec is not None) == native
    refresh(Tensor(damping, ms.float32))
    return [array.asnumpy() for array in arrays]


def assert_same(found: Sequence[Any], expected: Sequence[Any], tolerance: float) -> None:
    """Arrays agree to a tolerance relative to the largest entry of each."""
    for index, (one, other) in enumerate(zip(found, expected)):
        scale = max(np.abs(other).max(), 1e-30)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale, err_msg=f"array {index}")
