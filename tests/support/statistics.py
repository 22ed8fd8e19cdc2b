"""Statistics operators of one layer in both forms, called alone, and random layers for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.capture.convolution import ConvolutionOperators
from ms_kfac.ops.statistics.convolution_geometry import ConvolutionGeometry
from ms_kfac.ops.statistics.layer_statistics import (
    EVERYTHING,
    PERIOD,
    PRODUCT,
    PRODUCTS,
    SCALE,
    STAGED_WEIGHTS,
    LayerStatistics,
    StatisticsOptions,
)
from tests.oracle.patches import Geometry

# Sums of at most some thousand products in float32, each rounded to 6e-8; measured errors are below 1e-6.
TOLERANCE = 1e-5
# What staged arrays hold before the first pass, which replaces it.
STALE = 7.0


def operators_of(geometry: Geometry) -> ConvolutionOperators:
    """What the package makes of a convolution of that geometry."""
    padding = geometry.padding
    return ConvolutionOperators(
        bias=geometry.bias,
        geometry=ConvolutionGeometry(
            kernel_size=geometry.kernel,
            stride=geometry.stride,
            dilation=geometry.dilation,
            pad_mode=geometry.pad_mode,
            padding=(padding,) * 4 if isinstance(padding, int) else padding,
            groups=geometry.groups,
        ),
    )


def statistics(kind: Any, operators: Any, options: StatisticsOptions, native: bool) -> LayerStatistics:
    """The operator `kind` in its native form or its fallback."""
    operator: LayerStatistics = kind(operators, options, native=native)
    assert operator.native == native
    return operator


def record(weights: int, period: int = 1) -> np.ndarray:
    """The record of a layer of which nothing is staged."""
    values = np.zeros(STAGED_WEIGHTS + weights)
    values[PERIOD] = period
    return values


def stale(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Staged arrays as an older batch left them."""
    return [np.full(shape, STALE) for shape in shapes]


def parameters(values: Sequence[Any]) -> list[Parameter]:
    """float32 Parameters that start with these values."""
    return [
        Parameter(Tensor(np.asarray(value, np.float32)), name=f"s{i}", requires_grad=False)
        for i, value in enumerate(values)
    ]


# One for all: a graph that is given another Parameter is compiled again.
_GATE = Parameter(Tensor(0, ms.int32), name="gate", requires_grad=False)


def reset(state: Sequence[Parameter], values: Sequence[Any]) -> None:
    """Writes values into Parameters, for which a graph is compiled already."""
    for parameter, value in zip(state, values):
        ops.assign(parameter, Tensor(np.asarray(value, np.float32)))


def stage(
    operator: nn.Cell,
    x: np.ndarray,
    dout: np.ndarray,
    state: Sequence[Parameter],
    gate: int = EVERYTHING,
) -> list[np.ndarray]:
    """The state after one pass, as the tap of the present mode makes it."""
    ops.assign(_GATE, Tensor(gate, ms.int32))
    call = operator if ms.get_context("mode") == ms.GRAPH_MODE else operator.as_graph
    call(Tensor(x), Tensor(dout), _GATE, *state)
    return [parameter.asnumpy().copy() for parameter in state]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding relative to the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def assert_record(
    found: np.ndarray, weights: Sequence[float], product: float, size: float, passes: int = 1
) -> None:
    """One pass, or several that joined: the weights exactly, p within a small multiple of |u| |v|."""
    np.testing.assert_array_equal(found[:PRODUCT], [passes, found[PERIOD]])
    np.testing.assert_array_equal(found[STAGED_WEIGHTS:], weights)
    for index in (PRODUCT, PRODUCTS):
        np.testing.assert_allclose(found[index], product, rtol=0, atol=TOLERANCE * size)
    np.testing.assert_allclose(found[SCALE], size, rtol=TOLERANCE)


@st.composite
def convolutions(draw: st.DrawFn) -> Geometry:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    dense = draw(st.booleans())
    ones = st.just((1, 1))
    pads = st.tuples(*[st.integers(0, 2)] * 4)
    return Geometry(
        in_channels=groups * draw(st.integers(1, 5)),
        out_channels=groups * draw(st.integers(1, 5)),
        kernel=draw(pair),
        stride=draw(ones if dense else pair),
        pad_mode=draw(st.sampled_from(["same", "valid", "pad"])),
        padding=draw(pads),
        dilation=draw(ones if dense else st.tuples(st.integers(1, 2), st.integers(1, 2))),
        groups=groups,
        bias=draw(st.booleans()),
        image=draw(st.tuples(st.integers(5, 9), st.integers(5, 9))),
    )


@st.composite
def convolution_batches(draw: st.DrawFn) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """A convolution, inputs [N, C_in, H, W] and gradients of outputs [N, C_out, H', W'], float32."""
    geometry, samples = draw(convolutions()), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = (rng.standard_normal((samples, geometry.in_channels, *geometry.image)) + 0.5).astype(np.float32)
    g = rng.standard_normal((samples, geometry.out_channels, *geometry.output_size())).astype(np.float32)
    return geometry, x, g


@st.composite
def dense_batches(
    draw: st.DrawFn, *, least_axes: int = 1, widest: int = 9
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether a dense layer has a bias, inputs [..., n_in] and gradients of outputs [..., n_out], float32."""
    leading = draw(st.lists(st.integers(1, 5), min_size=least_axes, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = (rng.standard_normal((*leading, draw(st.integers(1, widest)))) + 0.5).astype(np.float32)
    g = rng.standard_normal((*leading, draw(st.integers(1, 9)))).astype(np.float32)
    return draw(st.booleans()), x, g


OPTIONS = st.builds(
    StatisticsOptions,
    sharing=st.sampled_from(["expand", "reduce"]),
    mean_reduction=st.booleans(),
    gradient_scale=st.sampled_from([1.0, 0.5]),
)


# Samples, channels per group, kernel, locations, groups, bias.
random_shapes = given(
    *(st.integers(1, most) for most in (5, 5, 4, 3, 2)),
    st.booleans(),
)


def grouped_convolution(channels: int, kernel: int, locations: int, groups: int, bias: bool) -> Geometry:
    """A convolution over one axis, with padding, and two output channels per group."""
    return Geometry(
        groups * channels,
        2 * groups,
        (kernel, 1),
        pad_mode="pad",
        padding=1,
        groups=groups,
        bias=bias,
        image=(kernel + locations, 3),
    )
