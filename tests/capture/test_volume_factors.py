"""A and G of three-dimensional and of transposed convolutions against loops, and their updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import mint, nn, ops

import ms_kfac
from ms_kfac.capture.attach import TappedPrimitive
from ms_kfac.capture.layer_kinds import describe_layer
from tests.oracle.factors import shared_factors
from tests.oracle.volumes import Borders, extract_patches, same_borders
from tests.support.bank import Bank, backward, linear_loss, randomise, tensor

SAMPLES, DAMPING = 3, 0.1


@dataclass(frozen=True)
class Case:
    """A layer, the shape of its input without samples, and how its window moves.

    `borders` are the zeros around the side that has patches, `None` for padding "same". `groups` and `bias`
    are those of the layer. `appended` rows and columns of zeros follow the output, and `scale` multiplies it.
    """

    layer: nn.Cell
    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    borders: Borders | None
    groups: int = 1
    bias: bool = False
    transposed: bool = False
    appended: int = 0
    scale: float = 1.0

    def factors(self, x: np.ndarray, g: np.ndarray, sharing: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(A, G) of every group, by the definitions."""
        return [shared_factors(a, of_g, self.bias, sharing) for a, of_g in self.sides(x, g)]

    def gradient(self, x: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
        """dW (d_out, d_in) of every group without bias, for the mean loss."""
        return [np.einsum("ntg,nta->ga", of_g, a) / len(x) for a, of_g in self.sides(x, g)]

    def sides(self, x: np.ndarray, g: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """(a, g) of every group, (N, T, d)."""
        if self.appended:
            g = g[..., : -self.appended, : -self.appended]
        whole, single = (g, x) if self.transposed else (x, g)
        borders = self.borders
        if borders is None:
            borders = same_borders(whole.shape[2:], self.kernel, self.stride, self.dilation)
        pairs = []
        for wide, narrow in zip(np.split(whole, self.groups, 1), np.split(single, self.groups, 1)):
            outputs = narrow.shape[2:]
            patches = extract_patches(wide, self.kernel, self.stride, self.dilation, borders, outputs)
            columns = np.moveaxis(narrow.reshape(*narrow.shape[:2], -1), 1, 2)
            pairs.append((columns, patches) if self.transposed else (patches, columns))
        return pairs


def volumes() -> list[Case]:
    once = (1, 1, 1)
    return [
        Case(nn.Conv3d(2, 3, 3, has_bias=True), (2, 3, 4, 3), (3, 3, 3), once, once, None, bias=True),
        Case(nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 2)), (2, 2, 5, 4), (1, 2, 3), (1, 2, 2), once, None),
        Case(
            nn.Conv3d(2, 2, 2, stride=2, pad_mode="pad", padding=(1, 0, 0, 1, 1, 1), has_bias=True),
            (2, 3, 3, 4),
            (2, 2, 2),
            (2, 2, 2),
            once,
            ((1, 0), (0, 1), (1, 1)),
            bias=True,
        ),
        Case(
            nn.Conv3d(4, 6, (2, 1, 2), pad_mode="valid", group=2, has_bias=True),
            (4, 3, 2, 3),
            (2, 1, 2),
            once,
            once,
            ((0, 0),) * 3,
            groups=2,
            bias=True,
        ),
    ]


def transposed() -> list[Case]:
    once, none = (1, 1), ((0, 0), (0, 0))
    return [
        Case(nn.Conv2dTranspose(2, 3, 3), (2, 4, 3), (3, 3), once, once, None, transposed=True),
        Case(
            nn.Conv2dTranspose(2, 3, (3, 2), stride=(2, 1), has_bias=True),
            (2, 3, 4),
            (3, 2),
            (2, 1),
            once,
            None,
            transposed=True,
        ),
        Case(
            nn.Conv2dTranspose(2, 2, 2, stride=3, pad_mode="valid"),
            (2, 2, 3),
            (2, 2),
            (3, 3),
            once,
            none,
            transposed=True,
        ),
        Case(
            nn.Conv2dTranspose(4, 6, 3, stride=2, pad_mode="pad", padding=1, output_padding=1, group=2),
            (4, 3, 2),
            (3, 3),
            (2, 2),
            once,
            ((1, 1), (1, 1)),
            groups=2,
            transposed=True,
            appended=1,
        ),
        Case(
            nn.Conv1dTranspose(2, 3, 3, stride=2, dilation=1, has_bias=True),
            (2, 4),
            (3,),
            (2,),
            (1,),
            None,
            transposed=True,
        ),
        Case(
            nn.Conv3dTranspose(2, 2, 2, stride=2, pad_mode="pad", padding=(0, 1, 1, 0, 0, 0), has_bias=True),
            (2, 2, 2, 3),
            (2, 2, 2),
            (2, 2, 2),
            (1, 1, 1),
            ((0, 1), (1, 0), (0, 0)),
            transposed=True,
        ),
        Case(
            nn.Conv3dTranspose(2, 1, 3, stride=2, pad_mode="pad", padding=1, output_padding=1),
            (2, 2, 2, 1),
            (3, 3, 3),
            (2, 2, 2),
            (1, 1, 1),
            ((1, 1),) * 3,
            transposed=True,
        ),
    ]


@pytest.mark.parametrize(
    ("mode", "sharing", "every"),
    [
        (ms.GRAPH_MODE, "expand", 1),
        (ms.GRAPH_MODE, "reduce", 6),
        (ms.PYNATIVE_MODE, "expand", 6),
        (ms.PYNATIVE_MODE, "reduce", 1),
    ],
    indirect=["mode"],
)
def test_factors_and_updates(mode: int, sharing: str, every: int, rng: np.random.Generator) -> None:
    cases = [*volumes(), *transposed()][::every]
    net = Bank([case.layer for case in cases])
    randomise(net, rng)
    inputs = [rng.standard_normal((SAMPLES, *case.shape)).astype(np.float32) for case in cases]
    outputs = net(*(tensor(x) for x in inputs))
    c = [rng.standard_normal(output.shape).astype(np.float32) for output in outputs]
    optimizer = ms_kfac.KFAC(net, 0.1, sharing=sharing, damping=DAMPING, damping_split="none")
    for output, again in zip(outputs, net(*(tensor(x) for x in inputs))):
        np.testing.assert_array_equal(again.asnumpy(), output.asnumpy())
    gradients = backward(linear_loss(net, c), optimizer.parameters, *inputs)
    optimizer(gradients)
    assert optimizer.summary(every_layer=True).count("verified") == 1 + len(cases)
    values = {
        p.name: (before.asnumpy(), after.asnumpy())
        for p, before, after in zip(optimizer.parameters, gradients, optimizer.precondition(gradients))
    }
    for i, case in enumerate(cases):
        error = f"layer {i}: {case}"
        found = optimizer.factors(f"layers.{i}")
        pairs = case.factors(inputs[i], c[i], sharing)
        dW, U = values[f"layers.{i}.weight"]
        matrices = dW.reshape(case.groups, dW.shape[0] // case.groups, -1)
        updates = U.reshape(matrices.shape)
        for group, (A, G) in enumerate(pairs):
            found_A, found_G = (found[x] if case.groups == 1 else found[x][group] for x in "AG")
            # Sums of at most 200 terms of order 1 in float32.
            np.testing.assert_allclose(found_A, A, rtol=1e-5, atol=1e-4, err_msg=error)
            np.testing.assert_allclose(found_G, G, rtol=1e-5, atol=1e-4, err_msg=error)
            matrix = matrices[group].T if case.transposed else matrices[group]
            expected = case.gradient(inputs[i], c[i])[group]
            np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-4, err_msg=error)
            update = updates[group].T if case.transposed else updates[group]
            if case.bias:
                db, u = (value.reshape(case.groups, -1)[group] for value in values[f"layers.{i}.bias"])
                matrix, update = np.column_stack([matrix, db]), np.column_stack([update, u])
            # Without a split, so that a swap of A and G shows.
            A, G = (factor + DAMPING**0.5 * np.eye(len(factor)) for factor in (A, G))
            solved = np.linalg.solve(G, matrix) @ np.linalg.inv(A)
            # Condition of the damped factors below 1e3.
            np.testing.assert_allclose(update, solved, rtol=1e-3, atol=1e-4 * np.abs(solved).max())


class Pointwise(nn.Cell):
    """A convolution with a 1 x 1 kernel between a dense layer's activations and the output."""

    def __init__(self, conv: nn.Cell, *, volumes: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.volumes = volumes

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        if self.volumes:
            return ops.squeeze(self.conv(ops.expand_dims(x, 2)), 2)
        return self.conv(x)


@pytest.mark.parametrize(
    ("mode", "method", "options"),
    [
        (ms.GRAPH_MODE, ms_kfac.EKFAC, {}),
        (ms.PYNATIVE_MODE, ms_kfac.SKFAC, {"spatial": "subsample", "samples": 12}),
        (ms.PYNATIVE_MODE, ms_kfac.TKFAC, {}),
        (ms.PYNATIVE_MODE, ms_kfac.THOR, {}),
    ],
    indirect=["mode"],
)
def test_every_method_trains_pointwise_kernels_like_images(
    mode: int, method: Any, options: dict[str, Any], rng: np.random.Generator
) -> None:
    """With a kernel of one element, a convolution, its transposed form and that of volumes are one map."""
    nets = {
        "images": Pointwise(nn.Conv2d(2, 3, 1)),
        "transposed": Pointwise(nn.Conv2dTranspose(2, 3, 1)),
        "volumes": Pointwise(nn.Conv3d(2, 3, 1), volumes=True),
    }
    weight = rng.standard_normal((3, 2))
    trained = {}
    batches = [rng.standard_normal((4, 2, 3, 4)).astype(np.float32) for _ in range(2)]
    targets = [rng.standard_normal((4, 3, 3, 4)).astype(np.float32) for _ in range(2)]
    for name, net in nets.items():
        own = weight.T if name == "transposed" else weight
        parameter = net.conv.weight
        parameter.set_data(tensor(own.reshape(parameter.shape)))
        optimizer = method(
            net, 0.1, damping=0.1, kl_clip=None, factor_interval=1, inverse_interval=1, **options
        )
        for x, c in zip(batches, targets):
            optimizer(backward(linear_loss(lambda_of(net), [c]), optimizer.parameters, x))
        value = parameter.asnumpy().reshape(own.shape)
        trained[name] = value.T if name == "transposed" else value
    assert np.abs(trained["images"] - weight).max() > 1e-3
    for name in ("transposed", "volumes"):
        np.testing.assert_allclose(trained[name], trained["images"], rtol=1e-4, atol=1e-4, err_msg=name)


def lambda_of(net: nn.Cell) -> Any:
    """The network with its output in a tuple."""

    def forward(x: ms.Tensor) -> tuple[ms.Tensor, ...]:
        return (net(x),)

    return forward


class Transposed(nn.Cell):
    """Computes what `mint.nn.ConvTranspose2d` computes, which has no CPU kernel in MindSpore 2.10.

    Output padding uncovers rows that padding removed.
    """

    def __init__(self, cell: Any) -> None:
        super().__init__(auto_prefix=False)
        self.conv = nn.Conv2dTranspose(
            *(cell.in_channels, cell.out_channels, cell.kernel_size, cell.stride, "pad"),
            padding=tuple(
                side
                for size, extra in zip(cell.padding, cell.output_padding)
                for side in (size, size - extra)
            ),
            group=cell.groups,
        )
        self.conv.weight = cell.weight

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        return self.conv(x)


class MintConvolution(nn.Cell):
    """Computes what the function of `mint.nn.Conv2d` or `Conv3d` computes, which has no CPU kernel either."""

    def __init__(self, cell: Any) -> None:
        super().__init__(auto_prefix=False)
        named = isinstance(cell.padding, str)
        arguments = cell.out_channels, cell.kernel_size
        options = {
            "pad_mode": cell.padding if named else "pad",
            "pad": 0 if named else tuple(size for size in cell.padding for _ in range(2)),
            "stride": cell.stride,
            "dilation": cell.dilation,
        }
        # The CPU has no Conv3D with groups.
        self.conv = (
            ops.Conv2D(*arguments, group=cell.groups, **options)
            if isinstance(cell, mint.nn.Conv2d)
            else ops.Conv3D(*arguments, **options)
        )

    def construct(self, x: ms.Tensor, weight: ms.Tensor, bias: ms.Tensor, *others: Any) -> ms.Tensor:
        y = self.conv(x, weight)
        return y if bias is None else y + bias.reshape((1, -1, *(1 for _ in x.shape[2:])))


class ScaledImages(mint.nn.Conv2d):
    """The factor 2 after the affine part shows in G alone."""

    def construct(self, input: ms.Tensor) -> ms.Tensor:
        return 2.0 * super().construct(input)


def convolutions_of_mint() -> list[Case]:
    once, none = (1, 1), ((0, 0), (0, 0))
    return [
        Case(
            mint.nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=(1, 0), groups=2),
            (4, 3, 2),
            (3, 2),
            (2, 2),
            once,
            ((1, 1), (1, 1)),
            groups=2,
            transposed=True,
        ),
        Case(
            mint.nn.Conv3d(2, 3, (1, 2, 2), stride=(1, 2, 1), padding=(0, 1, 1), bias=False),
            (2, 2, 3, 3),
            (1, 2, 2),
            (1, 2, 1),
            (1, 1, 1),
            ((0, 0), (1, 1), (1, 1)),
        ),
        Case(mint.nn.Conv3d(2, 2, 2), (2, 2, 3, 3), (2,) * 3, (1,) * 3, (1,) * 3, (*none, (0, 0)), bias=True),
        Case(
            mint.nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), groups=2),
            (4, 5, 4),
            (3, 2),
            (2, 1),
            once,
            ((0, 0), (1, 1)),
            groups=2,
            bias=True,
        ),
        Case(mint.nn.Conv2d(2, 3, 3, padding="same", bias=False), (2, 4, 5), (3, 3), once, once, None),
        Case(mint.nn.Conv2d(2, 3, 2, dilation=2), (2, 4, 5), (2, 2), once, (2, 2), none, bias=True),
        Case(ScaledImages(2, 3, 2), (2, 3, 4), (2, 2), once, once, none, bias=True, scale=2.0),
    ]


def test_convolutions_of_mint(mode: int, rng: np.random.Generator) -> None:
    cases = convolutions_of_mint()
    net = Bank([case.layer for case in cases])
    randomise(net, rng)
    optimizer = ms_kfac.KFAC(net, 0.1)
    cases[0].layer.__dict__["untapped_construct"] = Transposed(cases[0].layer)
    for case in cases[1:]:
        attribute = "conv2d" if isinstance(case.layer, mint.nn.Conv2d) else "conv3d"
        place = getattr(case.layer, attribute)
        stand_in = MintConvolution(case.layer)
        if isinstance(place, TappedPrimitive):
            place.primitive = stand_in
        else:
            setattr(case.layer, attribute, stand_in)
    inputs = [rng.standard_normal((SAMPLES, *case.shape)).astype(np.float32) for case in cases]
    c = [rng.standard_normal(y.shape).astype(np.float32) for y in net(*(tensor(x) for x in inputs))]
    optimizer(backward(linear_loss(net, c), optimizer.parameters, *inputs))
    assert optimizer.summary(every_layer=True).count("verified") == 1 + len(cases)
    for i, case in enumerate(cases):
        found = optimizer.factors(f"layers.{i}")
        for group, (A, G) in enumerate(case.factors(inputs[i], case.scale * c[i], "expand")):
            found_A, found_G = (found[x] if case.groups == 1 else found[x][group] for x in "AG")
            # Sums of at most 200 terms of order 1 to 4 in float32.
            np.testing.assert_allclose(found_A, A, rtol=1e-5, atol=1e-4, err_msg=f"layer {i}")
            np.testing.assert_allclose(found_G, G, rtol=1e-5, atol=1e-4, err_msg=f"layer {i}")


def test_the_bias_of_a_transposed_convolution_says_why() -> None:
    net = nn.SequentialCell(mint.nn.ConvTranspose2d(4, 6, (3, 2), groups=2))
    with pytest.warns(UserWarning, match="the bias of a transposed convolution is in no pa"):
        ms_kfac.KFAC(net, 0.1)


def test_images_of_mint_reach_the_native_kernels_where_those_of_nn_do() -> None:
    nets = nn.SequentialCell(mint.nn.Conv2d(2, 3, 3)), nn.SequentialCell(nn.Conv2d(2, 3, 3))
    found, expected = ([block.operator.native for block in ms_kfac.KFAC(net, 0.1).blocks] for net in nets)
    assert found == expected


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (mint.nn.ConvTranspose2d(2, 2, 2, stride=1, output_padding=1, dilation=2), "output_padding"),
        (mint.nn.Conv3d(2, 2, 2, padding=1, padding_mode="reflect"), "only zeros"),
    ],
)
def test_what_stays_first_order_says_why(layer: nn.Cell, reason: str) -> None:
    described = describe_layer("conv", layer)
    assert isinstance(described, str)
    assert reason in described
