"""The layout NHWC, which MindSpore computes on GPUs alone: factors against those of NCHW, with stand-ins."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn, ops

import ms_kfac
from ms_kfac.curvature import DiagonalBlock
from tests.oracle.factors import conv_factors
from tests.oracle.patches import Geometry, extract
from tests.oracle.unit_wise import normalize, unit_wise_fisher
from tests.support.bank import Bank, backward, convolution, linear_loss, randomise, tensor

SAMPLES = 3


class Images(nn.Cell):
    """Computes an NHWC convolution's primitive by one for NCHW."""

    def __init__(self, conv2d: Any) -> None:
        super().__init__(auto_prefix=False)
        self.conv2d = conv2d

    def construct(self, x: ms.Tensor, weight: ms.Tensor) -> ms.Tensor:
        y = self.conv2d(ops.transpose(x, (0, 3, 1, 2)), ops.transpose(weight, (0, 3, 1, 2)))
        return ops.transpose(y, (0, 2, 3, 1))


class Add(nn.Cell):
    """Adds a bias to the last axis."""

    def construct(self, x: ms.Tensor, bias: ms.Tensor) -> ms.Tensor:
        return x + bias


def channels_last(geometry: Geometry, rng: np.random.Generator) -> nn.Conv2d:
    """What `nn.Conv2d(..., data_format="NHWC")` makes on a GPU."""
    layer = convolution(geometry, rng)
    weight = np.moveaxis(layer.weight.asnumpy(), 1, 3)
    layer.weight = Parameter(tensor(weight), name="weight")
    layer.data_format = "NHWC"
    layer.conv2d, layer.bias_add = Images(layer.conv2d), Add()
    return layer


class Normalize(nn.Cell):
    """Batch normalisation of the last axis."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        super().__init__(auto_prefix=False)
        self.gamma, self.beta = layer.gamma, layer.beta

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        centred = x - x.mean((0, 1, 2), keep_dims=True)
        variance = ops.square(centred).mean((0, 1, 2), keep_dims=True)
        return centred * ops.rsqrt(variance + 1e-5) * self.gamma + self.beta


GEOMETRIES = (
    Geometry(3, 2, (2, 3), bias=True, image=(4, 5)),
    Geometry(4, 6, (3, 2), (2, 1), "pad", (1, 0, 1, 2), groups=2, bias=True, image=(5, 4)),
    Geometry(2, 3, (1, 1), image=(3, 4)),
)


@pytest.mark.parametrize(
    ("mode", "sharing", "geometries"),
    [
        (ms.GRAPH_MODE, "reduce", GEOMETRIES),
        (ms.GRAPH_MODE, "expand", GEOMETRIES[:1]),
        (ms.PYNATIVE_MODE, "reduce", GEOMETRIES[:1]),
        (ms.PYNATIVE_MODE, "expand", GEOMETRIES),
    ],
    indirect=["mode"],
)
def test_factors(mode: int, sharing: str, geometries: tuple[Geometry, ...], rng: np.random.Generator) -> None:
    count = len(geometries)
    norm = nn.BatchNorm2d(2)
    norm.format = "NHWC"
    # The last one is the first with one curvature per weight.
    shapes = [*geometries, geometries[0]]
    layers = [channels_last(geometry, rng) for geometry in shapes]
    net = Bank([*layers, norm])
    randomise(net, rng)
    net.set_train(True)
    optimizer = ms_kfac.KFAC(
        net, 0.1, sharing=sharing, normalization="unit_wise", blocks={rf"layers\.{count}": DiagonalBlock}
    )
    norm.__dict__["untapped_construct"] = Normalize(norm)
    images = [rng.standard_normal((SAMPLES, s.in_channels, *s.image)).astype(np.float32) for s in shapes]
    g = [rng.standard_normal((SAMPLES, s.out_channels, *s.output_size())).astype(np.float32) for s in shapes]
    for values, out in ((images, 0), (g, 1)):
        values.append(rng.standard_normal((SAMPLES, 2, 3, 4)).astype(np.float32) + 1 - out)
    inputs, c = ([np.moveaxis(value, 1, -1) for value in values] for values in (images, g))
    gradients = backward(linear_loss(net, c), optimizer.parameters, *inputs)
    optimizer(gradients)
    assert optimizer.summary().count("verified") == 2 + len(layers)
    for i, geometry in enumerate(geometries):
        A, G = conv_factors(images[i], g[i], geometry, sharing)
        order = features(geometry)
        found = optimizer.factors(f"layers.{i}")
        np.testing.assert_allclose(found["A"], A[..., order, :][..., order], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-5)
    x_hat = normalize(inputs[-1], (0, 1, 2), 1e-5)
    F = optimizer.factors(f"layers.{count + 1}")["F"]
    np.testing.assert_allclose(F, unit_wise_fisher(x_hat, c[-1]), rtol=1e-4, atol=1e-4)
    geometry = geometries[0]
    patches = extract(images[count], geometry).reshape(SAMPLES, -1, 18)
    patches = np.concatenate([patches, np.ones((*patches.shape[:2], 1))], -1)[..., features(geometry)]
    own = np.einsum("ngt,nta->nga", g[count].reshape(SAMPLES, 2, -1), patches)
    found = optimizer.factors(f"layers.{count}")["s"]
    np.testing.assert_allclose(found, (own**2).mean(0), rtol=1e-4, atol=1e-4)


def features(geometry: Geometry) -> np.ndarray:
    """Indices of a patch's features in the order of the kernel, then channels; the bias last."""
    taps, width = geometry.kernel[0] * geometry.kernel[1], geometry.in_channels // geometry.groups
    order = np.arange(width * taps).reshape(width, taps).T.reshape(-1)
    return np.append(order, width * taps) if geometry.bias else order
