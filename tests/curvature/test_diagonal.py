"""The diagonal block on statistics put in by hand."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn

from ms_kfac.capture.convolution import describe_convolution
from ms_kfac.capture.dense import describe_dense
from ms_kfac.capture.embedding import describe_embedding
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.lone_parameter import lone_parameter
from ms_kfac.curvature import DiagonalBlock
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from tests.support.bank import tensor
from tests.support.staging import set_averages

OPTIONS = StatisticsOptions("expand", mean_reduction=True, gradient_scale=1.0)

LAYERS = {
    "dense": lambda: describe_dense("layer", nn.Dense(3, 4)),
    "groups": lambda: describe_convolution("layer", nn.Conv2d(4, 6, 3, group=2)),
    "vector": lambda: lone_parameter(Parameter(tensor(np.zeros(5)), name="layer")),
    "scalar": lambda: lone_parameter(Parameter(tensor(np.array(0.0)), name="layer")),
}


class Everything(nn.Cell):
    """What the step asks of a block, as one graph."""

    def __init__(self, block: DiagonalBlock) -> None:
        super().__init__(auto_prefix=False)
        self.block = block

    def construct(self, matrix: ms.Tensor, damping: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        self.block.refresh(damping)
        return self.block.precondition(matrix), self.block.multiply(matrix), self.block.trace()


def block_of(name: str) -> DiagonalBlock:
    layer = LAYERS[name]()
    assert isinstance(layer, Layer)
    return DiagonalBlock(layer, prefix="test", options=OPTIONS)


@pytest.mark.parametrize("name", LAYERS)
def test_damped_inverse(mode: int, name: str, rng: np.random.Generator) -> None:
    block = block_of(name)
    shape = tuple(block.s_batch.shape)
    assert int(np.prod(shape)) == block.size
    s, matrix = rng.uniform(0, 2, shape), rng.standard_normal(shape)
    set_averages(block, [8.0], s=s)
    U, product, trace = Everything(block)(tensor(matrix), tensor(np.array(0.3)))
    # Few roundings of 6e-8 each; the trace adds at most a hundred numbers.
    np.testing.assert_allclose(U.asnumpy(), matrix / (s + 0.3), rtol=1e-6)
    np.testing.assert_allclose(product.asnumpy(), s * matrix, rtol=1e-6)
    np.testing.assert_allclose(trace.asnumpy(), s.sum(), rtol=1e-5)
    np.testing.assert_allclose(block.factors()["s"], s, rtol=1e-6)


def test_without_statistics_a_gradient_passes_unchanged(rng: np.random.Generator) -> None:
    block = block_of("dense")
    matrix = rng.standard_normal(tuple(block.s_batch.shape)).astype(np.float32)
    U, _, _ = Everything(block)(tensor(matrix), tensor(np.array(0.3)))
    np.testing.assert_array_equal(U.asnumpy(), matrix)


def test_an_embedding_is_refused() -> None:
    layer = describe_embedding("table", nn.Embedding(3, 2))
    assert isinstance(layer, Layer)
    with pytest.raises(TypeError, match=r"does not support table \(kind 'embedding'\)"):
        DiagonalBlock(layer, prefix="test", options=OPTIONS)
