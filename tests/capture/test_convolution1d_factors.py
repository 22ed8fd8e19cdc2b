"""A and G of one-dimensional convolutions against the loops of `tests.oracle.patches` with kernels (1, k)."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import mint, nn, ops

import ms_kfac
from tests.oracle.factors import conv_factors
from tests.oracle.patches import Geometry, convolve
from tests.support.bank import Bank, backward, linear_loss, randomise, tensor
from tests.support.loops import train_by

SAMPLES = 3


def rows(
    inputs: int, outputs: int, kernel: int, stride: int = 1, pad_mode: str = "same", **others: Any
) -> Geometry:
    """Of rows of length 7, unless told otherwise."""
    padding, dilation = others.pop("padding", 0), others.pop("dilation", 1)
    return Geometry(
        *(inputs, outputs, (1, kernel), (1, stride), pad_mode),
        padding=(0, 0, padding, padding),
        dilation=(1, dilation),
        image=(1, others.pop("length", 7)),
        **others,
    )


GEOMETRIES = (
    rows(3, 2, 1, bias=True),
    rows(2, 3, 3),
    rows(2, 3, 4, 2, bias=True, length=9),
    rows(2, 3, 3, 2, "valid", bias=True),
    rows(2, 3, 3, 1, "pad", padding=2, bias=True),
    rows(2, 2, 3, 1, "valid", dilation=2),
    rows(4, 6, 3, groups=2, bias=True),
    rows(3, 3, 2, 1, "pad", padding=1, groups=3),
)


class Scaled(nn.Conv1d):
    """A and G belong to the affine part, so that the factor 2 after it shows in G alone."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(x)


def layer(shape: Geometry, cls: Any = nn.Conv1d) -> nn.Cell:
    return cls(
        *(shape.in_channels, shape.out_channels, shape.kernel[1], shape.stride[1], shape.pad_mode),
        padding=0 if isinstance(shape.padding, int) else shape.padding[2],
        dilation=shape.dilation[1],
        group=shape.groups,
        has_bias=shape.bias,
    )


class OnCPU(nn.Cell):
    """Computes what `mint.nn.Conv1d`'s function does, which has no CPU kernel in MindSpore 2.10."""

    def __init__(self, shape: Geometry) -> None:
        super().__init__()
        self.conv2d = ops.Conv2D(
            shape.out_channels,
            shape.kernel,
            pad_mode=shape.pad_mode,
            pad=shape.padding if shape.pad_mode == "pad" else 0,
            stride=shape.stride,
            dilation=shape.dilation,
            group=shape.groups,
        )

    def construct(
        self,
        x: ms.Tensor,
        weight: ms.Tensor,
        bias: ms.Tensor,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
    ) -> ms.Tensor:
        y = self.conv2d(x.expand_dims(2), weight.expand_dims(2)).squeeze(2)
        return y if bias is None else y + bias.reshape((1, -1, 1))


def mint_layer(shape: Geometry, cls: Any = mint.nn.Conv1d) -> nn.Cell:
    cell = cls(
        *(shape.in_channels, shape.out_channels, shape.kernel[1], shape.stride[1]),
        padding=shape.padding[2] if shape.pad_mode == "pad" else shape.pad_mode,
        dilation=shape.dilation[1],
        groups=shape.groups,
        bias=shape.bias,
    )
    cell.conv1d = OnCPU(shape)
    return cell


class ScaledMint(mint.nn.Conv1d):
    """The same of mint's."""

    def construct(self, input: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(input)


@pytest.mark.parametrize("create", [layer, mint_layer])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_factors_equal_the_loops(mode: int, sharing: str, create: Any, rng: np.random.Generator) -> None:
    # mint refuses padding "same" with a stride.
    shapes = [s for s in GEOMETRIES if create is layer or s.pad_mode != "same" or s.stride == (1, 1)]
    scaled = len(shapes)
    shapes.append(GEOMETRIES[1])
    cells = [create(shape) for shape in shapes[:-1]]
    cells.append(create(shapes[-1], Scaled if create is layer else ScaledMint))
    net = Bank(cells)
    randomise(net, rng)
    images = [rng.standard_normal((SAMPLES, s.in_channels, *s.image)).astype(np.float32) for s in shapes]
    inputs = [image[:, :, 0] for image in images]
    gradients = [
        rng.standard_normal((SAMPLES, s.out_channels, *s.output_size())).astype(np.float32) for s in shapes
    ]
    optimizer = ms_kfac.KFAC(net, 0.1, sharing=sharing)

    outputs = net(*(tensor(x) for x in inputs))
    for i, shape in enumerate(shapes):
        weight = cells[i].weight.asnumpy().astype(np.float64).reshape(shape.weight_shape)
        bias = cells[i].bias.asnumpy().astype(np.float64) if shape.bias else None
        expected = convolve(images[i], weight, bias, shape)[:, :, 0] * (2 if i == scaled else 1)
        np.testing.assert_allclose(outputs[i].asnumpy(), expected, atol=1e-4, err_msg=str(shape))

    loss = linear_loss(net, [g[:, :, 0] for g in gradients])
    optimizer(backward(loss, net.trainable_params(), *inputs))
    for i, shape in enumerate(shapes):
        found = optimizer.factors(f"layers.{i}")
        A, G = conv_factors(images[i], gradients[i] * (2 if i == scaled else 1), shape, sharing)
        # Sums of at most 60 terms of order 1 to 4 in float32.
        np.testing.assert_allclose(found["A"], A, rtol=1e-5, atol=1e-5, err_msg=str(shape))
        np.testing.assert_allclose(found["G"], G, rtol=1e-5, atol=1e-5, err_msg=str(shape))


class Reader(nn.Cell):
    """A convolution and a dense layer; the convolution of rows, or the same of images of height 1."""

    def __init__(self, conv: nn.Cell, *, images: bool) -> None:
        super().__init__()
        self.conv = conv
        self.head = nn.Dense(3 * 7, 5)
        self.flatten = nn.Flatten()
        self.images = images
        randomise(self, np.random.default_rng(4), 0.3)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if self.images:
            x = x.expand_dims(2)
        return self.head(self.flatten(ops.tanh(self.conv(x))))


@pytest.mark.parametrize("method", [ms_kfac.KFAC, ms_kfac.TKFAC, ms_kfac.SKFAC, ms_kfac.EKFAC])
def test_it_trains_like_the_convolution_of_images(mode: int, method: Any, rng: np.random.Generator) -> None:
    shape = rows(2, 3, 3, bias=True)
    data = [
        (rng.standard_normal((8, 2, 7)).astype(np.float32), rng.integers(0, 5, 8).astype(np.int32))
        for _ in range(3)
    ]
    image = nn.Conv2d(2, 3, (1, 3), has_bias=True)
    nets = {
        "images": Reader(image, images=True),
        "rows": Reader(layer(shape), images=False),
        "mint": Reader(mint_layer(shape), images=False),
    }
    # The head has fewer samples than inputs, so that rounding would choose EKFAC's basis.
    skip = ("head",) if method is ms_kfac.EKFAC else ()
    start = image.weight.asnumpy().copy()
    trained = {}
    for name, net in nets.items():
        optimizer = method(net, 0.1, damping=0.1, factor_interval=1, inverse_interval=1, skip=skip)
        assert optimizer.factors("conv"), name
        train_by("functional", net, optimizer, data)
        trained[name] = {p.name: p.asnumpy().copy() for p in net.trainable_params()}
    assert np.abs(trained["images"]["conv.weight"] - start).max() > 1e-3
    for name in ("rows", "mint"):
        for parameter, weight in trained["images"].items():
            found = trained[name][parameter].reshape(weight.shape)
            # Three steps of float32 products and solves, in another order where operators are fallback.
            np.testing.assert_allclose(found, weight, rtol=0, atol=1e-4, err_msg=f"{name} {parameter}")


def test_other_padding_than_zeros_stays_first_order() -> None:
    net = nn.SequentialCell(mint.nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Dense(7, 5))
    with pytest.warns(UserWarning, match="34.4 % of the weights have no curvature"):
        optimizer = ms_kfac.KFAC(net, 0.1)
    (line,) = [line for line in optimizer.summary().splitlines() if "reflect" in line]
    assert "only zeros are supported" in line


def test_rows_reach_the_native_kernels_where_images_do() -> None:
    nets = Reader(layer(rows(2, 3, 3)), images=False), Reader(nn.Conv2d(2, 3, (1, 3)), images=True)
    found, expected = ([block.operator.native for block in ms_kfac.KFAC(net, 0.1).blocks] for net in nets)
    assert found == expected
