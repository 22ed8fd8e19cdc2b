"""A and G of convolutions of every geometry against the loops of `tests.oracle.patches` (im2col oracle)."""

from __future__ import annotations

import numpy as np
import pytest

import ms_kfac
from tests.oracle.factors import conv_factors
from tests.oracle.patches import Geometry, convolve
from tests.support.bank import Bank, backward, convolution, linear_loss, tensor

SAMPLES = 3

# Kernels (1,1) (1,2) (3,3) (4,5), strides 1 to 3, every padding mode, dilation, groups and depthwise,
# rectangular images, with and without bias.
GEOMETRIES = (
    Geometry(3, 2, (1, 1), (1, 1), "valid", image=(4, 6)),
    Geometry(3, 2, (1, 1), (2, 3), "same", bias=True, image=(5, 7)),
    Geometry(2, 3, (1, 2), (1, 1), "same", image=(4, 5)),
    Geometry(2, 3, (1, 2), (3, 2), "valid", bias=True, image=(7, 6)),
    Geometry(2, 3, (3, 3), (1, 1), "same", image=(6, 4)),
    Geometry(2, 3, (3, 3), (2, 2), "same", bias=True, image=(6, 7)),
    Geometry(2, 3, (3, 3), (3, 1), "pad", 1, image=(8, 5)),
    Geometry(2, 3, (3, 3), (1, 2), "pad", (2, 0, 1, 3), bias=True, image=(5, 6)),
    Geometry(2, 2, (3, 3), (1, 1), "valid", dilation=(2, 2), image=(9, 7)),
    Geometry(2, 2, (3, 3), (2, 1), "same", dilation=(1, 2), bias=True, image=(7, 8)),
    Geometry(2, 2, (4, 5), (1, 1), "same", bias=True, image=(6, 7)),
    Geometry(2, 2, (4, 5), (2, 3), "pad", (1, 2, 2, 2), image=(7, 9)),
    Geometry(1, 3, (4, 5), (1, 1), "valid", image=(4, 5)),
    Geometry(4, 6, (3, 3), (1, 1), "same", groups=2, image=(5, 6)),
    Geometry(4, 4, (1, 2), (2, 1), "valid", groups=2, bias=True, image=(5, 6)),
    Geometry(3, 3, (3, 3), (1, 1), "same", groups=3, bias=True, image=(5, 4)),
    Geometry(3, 6, (3, 2), (2, 2), "pad", 1, groups=3, image=(6, 5)),
)


def describe(i: int) -> str:
    return f"layers.{i}: {GEOMETRIES[i]}"


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_factors_equal_the_loops(mode: int, sharing: str, rng: np.random.Generator) -> None:
    net = Bank([convolution(shape, rng) for shape in GEOMETRIES])
    weights = {p.name: p.asnumpy().astype(np.float64) for p in net.trainable_params()}
    images = [rng.standard_normal((SAMPLES, shape.in_channels, *shape.image)) for shape in GEOMETRIES]
    images = [x.astype(np.float32) for x in images]
    gradients = [
        rng.standard_normal((SAMPLES, shape.out_channels, *shape.output_size())).astype(np.float32)
        for shape in GEOMETRIES
    ]
    optimizer = ms_kfac.KFAC(net, 0.1, sharing=sharing)

    outputs = net(*(tensor(x) for x in images))
    for i, shape in enumerate(GEOMETRIES):
        expected = convolve(images[i], weights[f"layers.{i}.weight"], weights.get(f"layers.{i}.bias"), shape)
        np.testing.assert_allclose(outputs[i].asnumpy(), expected, atol=1e-4, err_msg=describe(i))

    optimizer(backward(linear_loss(net, gradients), net.trainable_params(), *images))

    for i, shape in enumerate(GEOMETRIES):
        found = optimizer.factors(f"layers.{i}")
        A, G = conv_factors(images[i], gradients[i], shape, sharing)
        assert found["A"].dtype == np.float32
        # Sums of at most 150 terms of order 1 in float32: 1e-7 √150, and room for the order of sums.
        np.testing.assert_allclose(found["A"], A, rtol=1e-5, atol=1e-5, err_msg=describe(i))
        np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-5, err_msg=describe(i))
