"""AdamW's step of some of the parameters against float64."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from ms_kfac.ops.step.adam_step import AdamStep
from tests.oracle.adam import AdamW

SHAPES = ((3, 4), (), (5,), (2, 3), (4,), (7,))
TYPES = (ms.float32, ms.float32, ms.float32, ms.float16, ms.bfloat16, ms.float32)
UPDATED = (True, True, True, True, True, False)
DECAYED = (True, False, True, True, True, True)
OF_GROUP = (True, False, True, False, True, True)
RATE, DECAY = 0.02, 0.3
# As the kernel gets them.
BETAS = {"beta1": float(np.float32(0.8)), "beta2": float(np.float32(0.99))}


class Caller(nn.Cell):
    """Graph mode compiles a Cell."""

    def __init__(self, step: AdamStep) -> None:
        super().__init__()
        self.step = step

    def construct(self, rate: Tensor, decay: Tensor, rates: Any, decays: Any, gradients: Any) -> bool:
        return self.step(rate, decay, rates, decays, gradients)


def scalar(value: float) -> Tensor:
    return Tensor(value, ms.float32)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.float().asnumpy().astype(np.float64)


@pytest.mark.parametrize("maps", ["nothing", "decays", "rates and decays"])
def test_follows_the_rule(mode: int, maps: str, rng: np.random.Generator) -> None:
    count = len(SHAPES)
    maps_rates, maps_decays = maps == "rates and decays", maps != "nothing"
    weights = [
        Parameter(Tensor(rng.standard_normal(shape), kind), name=f"w{i}")
        for i, (shape, kind) in enumerate(zip(SHAPES, TYPES))
    ]
    step = AdamStep(
        *(weights, UPDATED, DECAYED),
        [flag and maps_rates for flag in OF_GROUP],
        [flag and maps_decays for flag in OF_GROUP],
        **{**BETAS, "eps": 1e-3, "maps_rates": maps_rates, "maps_decays": maps_decays, "name": "adam"},
    )
    rates = [0.01 * (i + 1) for i in range(count)]
    decays = [0.1 * (i + 1) for i in range(count)]
    given = [tuple(map(scalar, rates)) if maps_rates else scalar(9.0)]
    given += [tuple(map(scalar, decays)) if maps_decays else scalar(9.0)]
    oracle = AdamW(**BETAS, eps=1e-3)
    expected = [array(weight) for weight in weights]
    caller = Caller(step)
    for _ in range(3):
        gradients = tuple(Tensor(rng.standard_normal(s), kind) for s, kind in zip(SHAPES, TYPES))
        caller(scalar(RATE), scalar(DECAY), *given, gradients)
        for i in range(count):
            rate = rates[i] if maps_rates and OF_GROUP[i] else RATE
            decay = decays[i] if maps_decays and OF_GROUP[i] else DECAY
            if UPDATED[i]:
                decay = decay if DECAYED[i] else 0.0
                expected[i] = oracle.apply(f"w{i}", expected[i], array(gradients[i]), rate, decay)
    for i, weight in enumerate(weights):
        # Three roundings of a weight of about 1 to its type; moments are float32 for all types.
        ulp = {ms.float32: 3e-7, ms.float16: 2e-3, ms.bfloat16: 2e-2}[TYPES[i]]
        np.testing.assert_allclose(array(weight), expected[i], rtol=0, atol=ulp * 3)
        if UPDATED[i]:
            _, m, v = oracle.moments[f"w{i}"]
            np.testing.assert_allclose(step.m[i].asnumpy(), m, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(step.v[i].asnumpy(), v, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        step.corrections.asnumpy(), [1 - beta**3 for beta in BETAS.values()], rtol=1e-6
    )


def test_moments_belong_to_the_parameters_it_updates() -> None:
    """Weights may have the names of attributes."""
    weights = [Parameter(Tensor(np.ones(2, np.float32)), name=name) for name in ("updated", "eps")]
    flags = ((False, True), *[(False, False)] * 3)
    step = AdamStep(
        *(weights, *flags),
        **{**BETAS, "eps": 1e-8, "maps_rates": False, "maps_decays": False, "name": "x.adam"},
    )
    own = {p.name for p in step.get_parameters()}
    assert own == {"x.adam.m.eps", "x.adam.v.eps", "x.adam.corrections"}
