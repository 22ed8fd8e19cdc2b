"""Fading of statistics: native and composed, due and not, each array by the factor of its owner."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from ms_kfac import kernels
from ms_kfac.kernels.operator import is_native
from ms_kfac.ops import decay as module
from ms_kfac.ops.decay import Decay

SHAPES = ((3, 4), (), (2, 3, 3), (5,))
OWNERS = (1, 0, 1, 2)


class Caller(nn.Cell):
    """Graph mode compiles a Cell."""

    def __init__(self, decay: Decay) -> None:
        super().__init__()
        self.decay = decay

    def construct(self, due: Tensor, factors: Tensor) -> bool:
        return self.decay(due, factors)


@pytest.mark.parametrize("native", [True, False])
def test_each_array_fades_by_its_owners_factor(
    mode: int, native: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native and not is_native("decay"):
        pytest.skip("no native library")
    monkeypatch.setattr(module, "is_native", lambda name: native)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]
    parameters = [Parameter(Tensor(value), name=f"p{index}") for index, value in enumerate(values)]
    caller = Caller(Decay(parameters, OWNERS))
    factors = np.array([0.5, 1.0, 0.25], np.float32)

    caller(Tensor(0, ms.int32), Tensor(factors))
    for parameter, value in zip(parameters, values):
        np.testing.assert_array_equal(parameter.asnumpy(), value)

    caller(Tensor(1, ms.int32), Tensor(factors))
    for parameter, value, owner in zip(parameters, values, OWNERS):
        np.testing.assert_array_equal(parameter.asnumpy(), value * factors[owner])


def test_nothing_fades_nothing(mode: int) -> None:
    assert Caller(Decay([], []))(Tensor(1, ms.int32), Tensor([0.5], ms.float32))


def test_an_owner_without_a_factor_is_refused() -> None:
    if not is_native("decay"):
        pytest.skip("no native library")
    decay = Decay([Parameter(Tensor(1.0, ms.float32), name="p")], [3])
    with pytest.raises(RuntimeError, match="Decay"):
        decay(Tensor(1, ms.int32), Tensor([0.5, 0.5], ms.float32))
        # PyNative mode runs behind Python: reading what was to be written waits for it.
        decay.faded[0].asnumpy()
    assert "last error: Decay: an owner without a factor" in kernels.status()
