"""Statistics operators of one layer in both forms, called alone, and random layers for them."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from hypothesis import strategies as st
from mindspore import nn

from ms_kfac.capture.convolution import ConvolutionOperators
from ms_kfac.ops.patches import ConvolutionGeometry
from ms_kfac.ops.statistics import INPUTS, LayerStatistics, StatisticsOptions
from tests.oracle.patches import Geometry

# Sums of at most some thousand products in float32, each rounded to 6e-8; measured errors are below 1e-6.
TOLERANCE = 1e-5


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


def statistics(
    kind: Any, operators: Any, options: StatisticsOptions, native: bool, **own: Any
) -> LayerStatistics:
    """The operator `kind` in its native or its composed form."""
    reduce = options.sharing == "reduce"
    operator = kind(
        operators.activations(reduce),
        operators.gradients(reduce),
        operators.second_moment(),
        channels_first=operators.channels_first,
        options=options,
        geometry=operators.native_geometry() if native else None,
        **own,
    )
    assert operator.native == native
    return operator


def state_of(shapes: list[tuple[int, ...]], value: float = 0.0) -> list[ms.Parameter]:
    """Parameters of these shapes with one value in all."""
    return [
        ms.Parameter(ms.Tensor(np.full(shape, value, np.float32)), name=f"s{i}", requires_grad=False)
        for i, shape in enumerate(shapes)
    ]


def add(
    operator: nn.Cell, x: np.ndarray, dout: np.ndarray, state: list[ms.Parameter], gate: int = INPUTS
) -> list[np.ndarray]:
    """The state after one call, as the tap of the present mode makes it."""
    opened = ms.Parameter(ms.Tensor(gate, ms.int32), name="gate", requires_grad=False)
    call = operator if ms.get_context("mode") == ms.GRAPH_MODE else operator.as_graph
    call(ms.Tensor(x), ms.Tensor(dout), opened, *state)
    return [parameter.asnumpy() for parameter in state]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


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


OPTIONS = st.builds(
    StatisticsOptions,
    sharing=st.sampled_from(["expand", "reduce"]),
    mean_reduction=st.booleans(),
    gradient_scale=st.sampled_from([1.0, 0.5]),
)
