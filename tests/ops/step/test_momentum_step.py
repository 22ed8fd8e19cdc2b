"""The momentum step: the kernel and the fallback against float64, by every rule."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Parameter, Tensor, nn

from ms_kfac.ops.step import momentum_step as module
from ms_kfac.ops.step.momentum_step import MomentumStep
from tests.oracle.momentum import Momentum
from tests.support.native import skip_without_native

SHAPES = ((3, 4), (), (2, 3, 3, 3), (5,), (70001,))
SCALED = (True, False, True, True, False)
DECAYED = (True, False, False, True, True)
SOURCES = (5, 1, 0, 3, 6)
MOMENTUM = 0.8
SCALE = 0.4


class Caller(nn.Cell):
    """Graph mode compiles a Cell."""

    def __init__(self, step: MomentumStep) -> None:
        super().__init__()
        self.step = step

    def construct(self, rate: Any, decay: Any, scale: Tensor, updates: tuple[Tensor, ...]) -> bool:
        return self.step(rate, decay, scale, updates)


def numbers(tensor: Tensor) -> np.ndarray:
    """Its values in float64; NumPy has no bfloat16."""
    found = tensor.float() if tensor.dtype == ms.bfloat16 else tensor
    values: np.ndarray = found.asnumpy().astype(np.float64)
    return values


def check(
    native: bool,
    shapes: tuple[tuple[int, ...], ...],
    rng: np.random.Generator,
    *,
    nesterov: bool,
    decoupled: bool,
    own: bool,
    decays: bool = True,
    dtype: Any = ms.float32,
) -> MomentumStep:
    """Takes two steps, and compares weights and moments with the oracle's."""
    count = len(shapes)
    weights = [Parameter(Tensor(rng.standard_normal(s), dtype), name=f"w{i}") for i, s in enumerate(shapes)]
    moments = [Parameter(Tensor(np.zeros(s), dtype), name=f"v{i}") for i, s in enumerate(shapes)]
    rates = [0.1 + 0.05 * i * own for i in range(count)]
    amounts = [0.02 + 0.01 * i * own for i in range(count)]
    decayed = [flag and decays for flag in DECAYED[:count]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "is_native", lambda name: native)
        step = MomentumStep(
            weights,
            moments,
            Parameter(Tensor(MOMENTUM, ms.float32), name="momentum"),
            scaled=SCALED[:count],
            decayed=decayed,
            sources=SOURCES[:count],
            nesterov=nesterov,
            decoupled=decoupled,
            own_rates=own,
            own_decays=own,
        )
    expected = [numbers(weight) for weight in weights]
    oracles = [
        Momentum(MOMENTUM, nesterov, amounts[i] if decayed[i] else 0.0, decoupled) for i in range(count)
    ]
    caller = Caller(step)
    scalars = [tuple(Tensor(value, ms.float32) for value in values) for values in (rates, amounts)]
    rate, decay = scalars if own else (scalars[0][0], scalars[1][0])
    for _ in range(2):
        updates = [rng.standard_normal(2).astype(np.float32) for _ in range(max(SOURCES) + 2)]
        for i, source in enumerate(SOURCES[:count]):
            updates[source] = rng.standard_normal(shapes[i]).astype(np.float32)
        tensors = tuple(Tensor(update, dtype) for update in updates)
        caller(rate, decay, Tensor(SCALE, ms.float32), tensors)
        for i in range(count):
            direction = np.float64(SCALE if SCALED[i] else 1.0) * numbers(tensors[SOURCES[i]])
            expected[i] = oracles[i].apply("w", expected[i], direction, rates[i])
    # Some ten roundings of numbers that are at most a few times the largest weight.
    epsilon = {ms.float64: 3e-8, ms.float32: 1e-6, ms.float16: 1e-2, ms.bfloat16: 8e-2}[dtype]
    for i in range(count):
        for found, value in ((weights[i], expected[i]), (moments[i], oracles[i].velocity["w"])):
            bound = epsilon * max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(numbers(found), value, rtol=0, atol=bound)
    return step


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("decoupled", [False, True], ids=["coupled", "decoupled"])
@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy_ball", "nesterov"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
def test_follows_the_rule(
    mode: int, native: bool, nesterov: bool, decoupled: bool, own: bool, rng: np.random.Generator
) -> None:
    if native:
        skip_without_native("momentum_step")
    step = check(native, SHAPES, rng, nesterov=nesterov, decoupled=decoupled, own=own)
    assert step.native == native


@settings(max_examples=20)
@given(
    shapes=st.lists(st.lists(st.integers(1, 7), max_size=4).map(tuple), min_size=1, max_size=5).map(tuple),
    flags=st.tuples(*[st.booleans()] * 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shapes(shapes: tuple[tuple[int, ...], ...], flags: tuple[bool, ...], seed: int) -> None:
    skip_without_native("momentum_step")
    nesterov, decoupled, own, decays = flags
    for native in (True, False):
        rng = np.random.default_rng(seed)
        check(native, shapes, rng, nesterov=nesterov, decoupled=decoupled, own=own, decays=decays)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("decoupled", [False, True], ids=["coupled", "decoupled"])
@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy_ball", "nesterov"])
@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16, ms.float64], ids=str)
def test_weights_of_another_type_take_the_fallback(
    mode: int, dtype: Any, nesterov: bool, decoupled: bool, own: bool, rng: np.random.Generator
) -> None:
    step = check(True, SHAPES[:4], rng, nesterov=nesterov, decoupled=decoupled, own=own, dtype=dtype)
    assert not step.native
