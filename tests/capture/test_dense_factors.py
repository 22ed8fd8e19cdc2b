"""A and G of Dense layers on (N, d), (N, T, d) and more axes, in both sharing settings."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import mint, nn

import ms_kfac
from tests.oracle.factors import dense_factors
from tests.support.bank import Bank, backward, linear_loss, randomise, tensor

SAMPLES, D_IN, D_OUT = 6, 4, 3


class Reversed(nn.Dense):
    """A subclass with a `construct` of its own."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return super().construct(x)


def layers() -> dict[str, tuple[nn.Cell, bool, tuple[int, ...]]]:
    """Layer, whether it has a bias, the axes between samples and features."""
    return {
        "bias": (nn.Dense(D_IN, D_OUT), True, ()),
        "no bias": (nn.Dense(D_IN, D_OUT, has_bias=False), False, ()),
        "sequence": (nn.Dense(D_IN, D_OUT), True, (5,)),
        "sequence without bias": (nn.Dense(D_IN, D_OUT, has_bias=False), False, (5,)),
        "two axes": (nn.Dense(D_IN, D_OUT), True, (2, 3)),
        "subclass": (Reversed(D_IN, D_OUT), True, ()),
        "mint": (mint.nn.Linear(D_IN, D_OUT), True, ()),
        "mint sequence": (mint.nn.Linear(D_IN, D_OUT, bias=False), False, (5,)),
    }


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_factors_equal_the_definition(mode: int, sharing: str, rng: np.random.Generator) -> None:
    cases = layers()
    net = Bank([layer for layer, _, _ in cases.values()])
    randomise(net, rng)
    a = [rng.standard_normal((SAMPLES, *middle, D_IN)).astype(np.float32) for _, _, middle in cases.values()]
    g = [rng.standard_normal((SAMPLES, *middle, D_OUT)).astype(np.float32) for _, _, middle in cases.values()]
    optimizer = ms_kfac.KFAC(net, 0.1, sharing=sharing)

    optimizer(backward(linear_loss(net, g), net.trainable_params(), *a))

    for i, (name, (_, bias, _)) in enumerate(cases.items()):
        A, G = dense_factors(a[i], g[i], bias, sharing)
        found = optimizer.factors(f"layers.{i}")
        # Sums of at most 36 float32 terms of order 1.
        np.testing.assert_allclose(found["A"], A, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-6, err_msg=name)


def test_activation_inside_dense(mode: int, rng: np.random.Generator) -> None:
    """G is that of the affine output, before the activation that `nn.Dense` applies itself."""
    net = Bank([nn.Dense(D_IN, D_OUT, activation="sigmoid"), nn.Dense(D_IN, D_OUT, activation=nn.SeLU())])
    randomise(net, rng)
    a = [rng.standard_normal((SAMPLES, D_IN)).astype(np.float32) for _ in range(2)]
    c = [rng.standard_normal((SAMPLES, D_OUT)).astype(np.float32) for _ in range(2)]
    outputs = [
        x.astype(np.float64) @ layer.weight.asnumpy().T.astype(np.float64) + layer.bias.asnumpy()
        for x, layer in zip(a, net.layers)
    ]
    sigmoid = 1 / (1 + np.exp(-outputs[0]))
    # MindSpore 2.10's SELU derivative is wrong for negative values on CPU: it is asked, not written down.
    slope = ms.grad(nn.SeLU())(tensor(outputs[1])).asnumpy()
    slopes = [sigmoid * (1 - sigmoid), slope]
    optimizer = ms_kfac.KFAC(net, 0.1)

    optimizer(backward(linear_loss(net, c), net.trainable_params(), *a))

    for i in range(2):
        A, G = dense_factors(a[i], c[i] * slopes[i], True)
        found = optimizer.factors(f"layers.{i}")
        np.testing.assert_allclose(found["A"], A, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["G"], G, rtol=2e-5, atol=1e-6)
