"""Fading of statistics: native and composed, due and not, by the factor of an owner, waiting for flags."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac import kernels
from ms_kfac.ops import decay as module
from ms_kfac.ops.decay import Decay, FadesWhile
from tests.support.native import needs_native, skip_without_native

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
    if native:
        skip_without_native("decay")
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


# None for what always fades, else a flag and how many elements wait for it.
WAITING = ((0, None), (1, None), (0, 7), None, (1, 5))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("flags", [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_what_waits_for_a_flag_stays(
    mode: int,
    native: bool,
    flags: tuple[float, ...],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if native:
        skip_without_native("decay")
    monkeypatch.setattr(module, "is_native", lambda name: native)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in (*SHAPES, (9,))]
    parameters = [Parameter(Tensor(value), name=f"p{index}") for index, value in enumerate(values)]
    held = [Parameter(Tensor(flag, ms.float32), name=f"flag{index}") for index, flag in enumerate(flags)]
    fading = [
        parameter if waiting is None else FadesWhile(parameter, held[waiting[0]], waiting[1])
        for parameter, waiting in zip(parameters, WAITING)
    ]
    caller = Caller(Decay(fading, (*OWNERS, 0)))
    factors = np.array([0.5, 0.75, 0.25], np.float32)

    caller(Tensor(0, ms.int32), Tensor(factors))
    for parameter, value in zip(parameters, values):
        np.testing.assert_array_equal(parameter.asnumpy(), value)

    caller(Tensor(1, ms.int32), Tensor(factors))
    for parameter, value, owner, waiting in zip(parameters, values, (*OWNERS, 0), WAITING):
        expected = (value * factors[owner]).ravel()
        if waiting is not None and flags[waiting[0]] == 0:
            expected[: waiting[1]] = value.ravel()[: waiting[1]]
        np.testing.assert_array_equal(parameter.asnumpy(), expected.reshape(value.shape))

    # Later calls go by what the flags hold then.
    changed = parameters[0].asnumpy().copy()
    ops.assign(held[0], Tensor(1.0 - flags[0], ms.float32))
    caller(Tensor(1, ms.int32), Tensor(factors))
    np.testing.assert_array_equal(parameters[0].asnumpy(), changed * (0.75 if flags[0] == 0 else 1.0))


@needs_native("decay")
def test_what_waits_is_not_written() -> None:
    """A signalling NaN would be quieted by a product, were it one by 1."""
    value = np.array([0x7FA00000] * 3, np.uint32).view(np.float32)
    parameter = Parameter(Tensor(value), name="p")
    flag = Parameter(Tensor(0.0, ms.float32), name="flag")
    decay = Decay([FadesWhile(parameter, flag, 2)], [0])
    decay(Tensor(1, ms.int32), Tensor([0.5], ms.float32))
    bits = parameter.asnumpy().view(np.uint32)
    np.testing.assert_array_equal(bits, [0x7FA00000, 0x7FA00000, 0x7FE00000])


@pytest.mark.parametrize("leading", [0, 4])
def test_more_elements_than_there_are_are_refused(leading: int) -> None:
    parameter = Parameter(Tensor(np.zeros(3, np.float32)), name="p")
    flag = Parameter(Tensor(0.0, ms.float32), name="flag")
    with pytest.raises(ValueError, match=f"leading must be from 1 to 3, .* p, or None, got {leading}"):
        Decay([FadesWhile(parameter, flag, leading)], [0])


def test_nothing_fades_nothing(mode: int) -> None:
    assert Caller(Decay([], []))(Tensor(1, ms.int32), Tensor([0.5], ms.float32))


@needs_native("decay")
def test_an_owner_without_a_factor_is_refused() -> None:
    decay = Decay([Parameter(Tensor(1.0, ms.float32), name="p")], [3])
    with pytest.raises(RuntimeError, match="Decay"):
        decay(Tensor(1, ms.int32), Tensor([0.5, 0.5], ms.float32))
        # PyNative mode runs behind Python: reading what was to be written waits for it.
        decay.faded[0].asnumpy()
    assert "last error: Decay: an owner without a factor" in kernels.status()
