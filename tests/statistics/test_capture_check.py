"""p and |u| |v| of every kind of layer against r^T dW s of float64 gradients; p against MindSpore's own."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from mindspore import Tensor, nn

from ms_kfac.capture.dense import DenseOperators
from ms_kfac.capture.discover import discover
from ms_kfac.capture.embedding import EmbeddingOperators
from ms_kfac.capture.layer import LayerOperators
from ms_kfac.capture.normalization import BatchNormOperators, LayerNormOperators
from ms_kfac.ops.statistics.capture_check import CaptureCheck
from ms_kfac.ops.statistics.kronecker_statistics import KroneckerStatistics
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, PRODUCT, SCALE, StatisticsOptions
from tests.oracle.capture_check import product_of, projected, size_of
from tests.oracle.eigenbasis import conv_gradients, dense_gradients
from tests.oracle.patches import Geometry
from tests.oracle.tkfac import Rows, convolution_rows, dense_rows
from tests.oracle.unit_wise import batch_normalized, layer_normalized
from tests.support.bank import Bank, backward, linear_loss, randomise, tensor
from tests.support.forms import forms_of
from tests.support.layer_bank import CASES
from tests.support.normalization import VOCABULARY, WIDTH, embeddings, normalizations
from tests.support.statistics import (
    OPTIONS,
    TOLERANCE,
    convolution_batches,
    dense_batches,
    operators_of,
    parameters,
    record,
    stage,
    stale,
    statistics,
)


def check(
    operators: LayerOperators, x: np.ndarray, dout: np.ndarray, product: float, size: float | None = None
) -> None:
    """The operator that the fallbacks share."""
    found, scale = (value.asnumpy() for value in CaptureCheck(operators)(tensor(x), tensor(dout)))
    np.testing.assert_allclose(found, product, rtol=0, atol=TOLERANCE * scale)
    if size is not None:
        np.testing.assert_allclose(scale, size, rtol=TOLERANCE)


def check_with_statistics(
    operators: LayerOperators,
    options: StatisticsOptions,
    x: np.ndarray,
    dout: np.ndarray,
    rows: list[Rows],
    dW: np.ndarray,
) -> None:
    """Kernel and fallback of a layer with factors; p is of dout as delivered, whatever the options scale."""
    columns = operators_columns(operators, x)
    product, size = product_of(dW.sum(1), columns, operators.bias), size_of(rows, columns, operators.bias)
    check(operators, x, dout, product, size)
    dim_A, dim_G = dW.shape[3], dW.shape[2]
    leading = (len(rows),) if len(rows) > 1 else ()
    for native in forms_of("kronecker_statistics"):
        operator = statistics(KroneckerStatistics, operators, options, native)
        state = parameters([*stale((*leading, dim_A, dim_A), (*leading, dim_G, dim_G)), record(2)])
        found = stage(operator, x, dout, state, EVERYTHING)[-1]
        np.testing.assert_allclose(found[PRODUCT], product, rtol=0, atol=TOLERANCE * size)
        np.testing.assert_allclose(found[SCALE], size, rtol=TOLERANCE)


def operators_columns(operators: LayerOperators, x: np.ndarray) -> int:
    """Columns of the layer's weight."""
    return x.shape[1] // operators.groups if operators.channels_first else x.shape[-1]


@settings(max_examples=25)
@given(batch=convolution_batches(), options=OPTIONS)
def test_any_convolution(batch: tuple[Geometry, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    geometry, x, g = batch
    rows, dW = convolution_rows(x, g, geometry), conv_gradients(x, g, geometry)
    check_with_statistics(operators_of(geometry), options, x, g, rows, dW)


@settings(max_examples=15)
@given(batch=dense_batches(), options=OPTIONS)
def test_any_dense_layer(batch: tuple[bool, np.ndarray, np.ndarray], options: StatisticsOptions) -> None:
    bias, x, g = batch
    rows, dW = [dense_rows(x, g, bias)], dense_gradients(x, g, bias)
    check_with_statistics(DenseOperators(bias=bias), options, x, g, rows, dW)


@pytest.mark.parametrize("axes", [(), (4,), (2, 3)])
@pytest.mark.parametrize("outside", [False, True])
def test_embedding(axes: tuple[int, ...], outside: bool, rng: np.random.Generator) -> None:
    """A table's row for each id; ids outside of the table have no part in its gradient."""
    ids = rng.integers(-2 if outside else 0, VOCABULARY + 2 * outside, (5, *axes)).astype(np.int32)
    g = rng.standard_normal((*ids.shape, WIDTH)).astype(np.float32)
    dW = np.zeros((VOCABULARY, WIDTH))
    for index, row in np.ndenumerate(ids):
        if 0 <= row < VOCABULARY:
            dW[row] += g[index]
    check(EmbeddingOperators(bias=False, vocabulary=VOCABULARY), ids, g, projected(dW))


@pytest.mark.parametrize("image", [(), (4,), (3, 4)])
def test_batch_norm(image: tuple[int, ...], rng: np.random.Generator) -> None:
    x = (2 + rng.standard_normal((6, 3, *image))).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    x_hat, dout = batch_normalized(x, 0.1).reshape(-1, 3), np.moveaxis(g, 1, -1).reshape(-1, 3)
    product = projected((x_hat * dout).sum(0), dout.astype(np.float64).sum(0))
    check(BatchNormOperators(bias=True, epsilon=0.1, shape=(3,)), x, g, product)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 2)])
@pytest.mark.parametrize("positions", [(), (3,)])
def test_layer_norm(shape: tuple[int, ...], positions: tuple[int, ...], rng: np.random.Generator) -> None:
    """gamma's axes are a weight's rows, columns and taps; beta has gamma's shape."""
    x = (2 + rng.standard_normal((6, *positions, *shape))).astype(np.float32)
    g = rng.standard_normal(x.shape).astype(np.float32)
    x_hat = layer_normalized(x, len(shape), 0.1).reshape(-1, *shape)
    dout = g.astype(np.float64).reshape(-1, *shape)
    product = projected((x_hat * dout).sum(0), dout.sum(0))
    check(LayerNormOperators(bias=True, epsilon=0.1, shape=shape), x, g, product)


def test_equals_the_delivered_gradient_of_every_layer(mode: int, rng: np.random.Generator) -> None:
    """A tap's p, and what is measured of MindSpore's own gradients, are the same number."""
    cases, tables = normalizations(), embeddings()
    net = Bank(
        [case.layer(rng) for case in CASES] + [case.layer for case in cases] + [table for table, _ in tables]
    )
    randomise(net, rng)
    net.set_train(True)
    batch = [case.batch(6, rng) for case in CASES]
    x = [inputs for inputs, _ in batch] + [2 + rng.standard_normal((6, *case.shape)) for case in cases]
    x += [rng.integers(0, VOCABULARY, (6, *axes)).astype(np.int32) for _, axes in tables]
    c = [g for _, g in batch] + [rng.standard_normal((6, *case.shape)) for case in cases]
    c += [rng.standard_normal((6, *axes, WIDTH)) for _, axes in tables]
    layers = discover(net, net.trainable_params(), ())[0]
    assert len(layers) == len(x)
    gradients = dict(
        zip(
            (p.name for p in net.trainable_params()),
            backward(linear_loss(net, c), net.trainable_params(), *x),
        )
    )
    for layer, inputs, g in zip(layers, x, c):
        delivered = [gradients[parameter.name].asnumpy() for parameter in layer.parameters()]
        check(layer.operators, inputs, g / len(g), projected(*delivered))


def test_in_both_modes_with_half_precision(mode: int, rng: np.random.Generator) -> None:
    x, g = rng.standard_normal((5, 4)).astype(np.float16), rng.standard_normal((5, 3)).astype(np.float16)
    expected = product_of(dense_gradients(x, g, True).sum(1), 4, True)
    found, scale = Caller(DenseOperators(bias=True))(Tensor(x, ms.float32), Tensor(g))
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=0, atol=TOLERANCE * scale.asnumpy())


class Caller(nn.Cell):
    """Graph mode compiles a Cell."""

    def __init__(self, operators: Any) -> None:
        super().__init__()
        self.check = CaptureCheck(operators)

    def construct(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        return self.check(x, dout)
