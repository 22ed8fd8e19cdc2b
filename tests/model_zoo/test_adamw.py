"""The zoo's AdamW against float64."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn

from model_zoo.common.adamw import AdamW
from tests.oracle import adam

STEPS = 5


@pytest.mark.parametrize("rates", [0.01, [0.01 * (step + 1) for step in range(STEPS)]])
def test_follows_the_rule(mode: int, rates: float | list[float], rng: np.random.Generator) -> None:
    net = nn.SequentialCell(nn.Dense(4, 3), nn.LayerNorm((3,)))
    parameters = net.trainable_params()
    values = dict(beta1=0.8, beta2=0.99, eps=1e-3, weight_decay=0.1)
    optimizer, oracle = AdamW(parameters, rates, **values), adam.AdamW(**values)
    expected = {weight.name: weight.asnumpy().astype(np.float64) for weight in parameters}
    assert any("gamma" in name for name in expected)
    for step in range(STEPS):
        gradients = [rng.standard_normal(weight.shape).astype(np.float32) for weight in parameters]
        optimizer(tuple(Tensor(gradient) for gradient in gradients))
        rate = rates[step] if isinstance(rates, list) else rates
        for weight, gradient in zip(parameters, gradients):
            expected[weight.name] = oracle.apply(weight.name, expected[weight.name], gradient, rate)
            # Some operations in float32 per step.
            np.testing.assert_allclose(weight.asnumpy(), expected[weight.name], rtol=0, atol=1e-5)
    assert optimizer.global_step.asnumpy()[0] == STEPS
