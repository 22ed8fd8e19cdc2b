"""What is measured of delivered gradients and weights, as a kernel and as the fallback, against float64."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics.signs import ROWS, column_signs, signs
from ms_kfac.statistics import measure as module
from ms_kfac.statistics.measure import MeasureGradients
from tests.oracle.capture_check import projected
from tests.support.forms import forms_of, native_and_fallback

Shapes = tuple[tuple[int, ...], ...]
# Dense, convolution, depthwise, embedding, normalization over one, two and three axes: weight and bias.
LAYERS: tuple[Shapes, ...] = (
    ((4, 3), (4,)),
    ((5, 2, 3, 2),),
    ((6, 1, 2, 2), (6,)),
    ((7, 3),),
    ((5,), (5,)),
    ((2, 3), (2, 3)),
    ((2, 3, 2), (2, 3, 2)),
    ((1, 1), (1,)),
)


class Caller(nn.Cell):
    """Graph mode compiles a Cell."""

    def __init__(self, layers: Any, positions: Any, native: bool, gradients: int) -> None:
        super().__init__()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "is_native", lambda name: native)
            self.measure = MeasureGradients(layers, positions, gradients)

    def construct(self, due: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
        return self.measure(due, gradients)


def case(
    shapes: tuple[Shapes, ...], rng: np.random.Generator
) -> tuple[list[tuple[Parameter, ...]], list[tuple[int, ...]], list[np.ndarray]]:
    """Layers with random weights, where their gradients are among all, and those, in another order."""
    layers = [
        tuple(
            Parameter(Tensor(rng.standard_normal(shape).astype(np.float32)), name=f"layer{i}.{part}")
            for part, shape in enumerate(own)
        )
        for i, own in enumerate(shapes)
    ]
    count = sum(len(own) for own in shapes) + 2
    order = iter(rng.permutation(count).tolist())
    gradients = [np.full(3, np.nan, np.float32)] * count
    positions = [tuple(next(order) for _ in own) for own in shapes]
    for own, places in zip(shapes, positions):
        for shape, place in zip(own, places):
            gradients[place] = (3 * rng.standard_normal(shape)).astype(np.float32)
    return layers, positions, gradients


def assert_measured(
    found: Tensor, layers: Any, positions: list[tuple[int, ...]], gradients: list[np.ndarray]
) -> None:
    measured = found.asnumpy()
    assert measured.shape == (len(layers), 3)
    for row, own, places in zip(measured, layers, positions):
        arrays = [gradients[place].astype(np.float64) for place in places]
        weights = [parameter.asnumpy().astype(np.float64) for parameter in own]
        for index, values in ((0, arrays), (1, weights)):
            # A sum of signed numbers may cancel; its rounding is that of its terms.
            terms = sum(np.abs(value).sum() for value in values)
            np.testing.assert_allclose(row[index], projected(*values), rtol=0, atol=1e-6 * terms)
        norm = np.sqrt(sum(np.sum(array**2) for array in arrays))
        np.testing.assert_allclose(row[2], norm, rtol=1e-6)


@native_and_fallback("measure_gradients")
def test_every_layer(mode: int, native: bool, rng: np.random.Generator) -> None:
    layers, positions, gradients = case(LAYERS, rng)
    caller = Caller(layers, positions, native, len(gradients))
    assert caller.measure.native == native
    tensors = tuple(map(Tensor, gradients))
    assert not caller(Tensor(0, ms.int32), tensors).asnumpy().any()
    assert_measured(caller(Tensor(1, ms.int32), tensors), layers, positions, gradients)
    # Weights are the present ones.
    for own in layers:
        for parameter in own:
            ops.assign(parameter, Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    assert_measured(caller(Tensor(1, ms.int32), tensors), layers, positions, gradients)


@settings(max_examples=10)
@given(
    shapes=st.lists(
        st.tuples(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.booleans()), min_size=1, max_size=3
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(shapes: list[tuple[list[int], bool]], seed: int) -> None:
    own = tuple(
        (tuple(shape), (shape[0],)) if bias else (tuple(shape),)
        for shape, bias in shapes
        if np.prod(shape) < 5000
    )
    if not own:
        return
    for native in forms_of("measure_gradients"):
        layers, positions, gradients = case(own, np.random.default_rng(seed))
        found = Caller(layers, positions, native, len(gradients))(
            Tensor(1, ms.int32), tuple(map(Tensor, gradients))
        )
        assert_measured(found, layers, positions, gradients)


@native_and_fallback("measure_gradients")
def test_a_large_layer(native: bool, rng: np.random.Generator) -> None:
    """On all threads, with sums of half a million terms."""
    layers, positions, gradients = case((((1024, 512), (1024,)),), rng)
    caller = Caller(layers, positions, native, len(gradients))
    measured = caller(Tensor(1, ms.int32), tuple(map(Tensor, gradients))).asnumpy()[0]
    weights = [parameter.asnumpy() for parameter in layers[0]]
    for index, arrays in enumerate(([gradients[place] for place in positions[0]], weights)):
        W, b = (array.astype(np.float64) for array in arrays)
        r = signs(ROWS, 1024).astype(np.float64)
        expected = r @ W @ column_signs(W.shape) + r @ b
        np.testing.assert_allclose(measured[index], expected, rtol=0, atol=1e-7 * np.abs(W).sum())


@native_and_fallback("measure_gradients")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_detected(native: bool, value: float, rng: np.random.Generator) -> None:
    layers, positions, gradients = case(LAYERS[:2], rng)
    gradients[positions[0][0]][1, 2] = value
    found = Caller(layers, positions, native, len(gradients))(
        Tensor(1, ms.int32), tuple(map(Tensor, gradients))
    ).asnumpy()
    assert not np.isfinite(found[0, [0, 2]]).any()
    assert np.isfinite(found[1]).all()
