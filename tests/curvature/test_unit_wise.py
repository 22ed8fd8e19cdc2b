"""Unit-wise and embedding blocks on statistics put in by hand: products, traces, inverses, gates."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, nn

from ms_kfac.capture.embedding import describe_embedding
from ms_kfac.capture.layer import Layer
from ms_kfac.capture.normalization import describe_batch_norm, describe_layer_norm
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.curvature.embedding import EmbeddingBlock
from ms_kfac.curvature.unit_wise import UnitWiseBlock
from ms_kfac.ops.statistics.layer_statistics import (
    CORRECTED_EIGENVALUES,
    EVERYTHING,
    GRADIENTS,
    INPUTS,
    STAGED_WEIGHTS,
    StatisticsOptions,
)
from tests.oracle.preconditioner import kronecker_solve
from tests.oracle.unit_wise import unit_wise_solve
from tests.support.bank import tensor
from tests.support.staging import set_averages

OPTIONS = StatisticsOptions("expand", mean_reduction=True, gradient_scale=1.0)
SEPARATE = StatisticsOptions("expand", mean_reduction=True, gradient_scale=1.0, separate=True)


def unit_wise(F: np.ndarray, count: float = 4.0) -> UnitWiseBlock:
    """A block whose averages are F."""
    layer = describe_batch_norm("norm", nn.BatchNorm1d(len(F)))
    assert isinstance(layer, Layer)
    block = UnitWiseBlock(layer, prefix="test", options=OPTIONS)
    set_averages(block, [count], squares=np.stack([F[:, 0, 0], F[:, 1, 1]]), cross=F[:, 0, 1])
    return block


def embedding(a: np.ndarray, G: np.ndarray, options: StatisticsOptions = OPTIONS) -> EmbeddingBlock:
    """A block whose averages are diag(a) and G."""
    layer = describe_embedding("embed", nn.Embedding(len(a), len(G)))
    assert isinstance(layer, Layer)
    block = EmbeddingBlock(layer, prefix="test", options=options)
    set_averages(block, [3.0, 6.0], A=a, G=G)
    return block


class Everything(nn.Cell):
    """What the step asks of a block, as one graph."""

    def __init__(self, block: CurvatureBlock) -> None:
        super().__init__(auto_prefix=False)
        self.block = block

    def construct(
        self, matrix: ms.Tensor, damping: ms.Tensor
    ) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor, ms.Tensor]:
        self.block.refresh(damping)
        return (
            self.block.precondition(matrix),
            self.block.multiply(matrix),
            self.block.trace(),
            self.block.current_estimate(0)[0],
        )


def random_fisher(rng: np.random.Generator, channels: int) -> np.ndarray:
    factors = rng.standard_normal((channels, 2, 3))
    return factors @ factors.transpose(0, 2, 1)


def test_unit_wise_block(mode: int, rng: np.random.Generator) -> None:
    F, matrix, damping = random_fisher(rng, 4), rng.standard_normal((4, 2)), 0.3
    block = unit_wise(F)
    U, product, trace, observed = Everything(block)(tensor(matrix), tensor(np.array(damping)))
    # Conditions below 1e2 in float32.
    expected = unit_wise_solve(matrix[:, 0], matrix[:, 1], F, damping)
    np.testing.assert_allclose(U.asnumpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(product.asnumpy(), np.einsum("cij,cj->ci", F, matrix), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trace.asnumpy(), np.trace(F, axis1=1, axis2=2).sum(), rtol=1e-6)
    np.testing.assert_allclose(observed.asnumpy(), F, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(block.factors()["F"], F, rtol=1e-6, atol=1e-7)


def test_unit_wise_inverse_of_a_singular_block(rng: np.random.Generator) -> None:
    """One sample makes F_c of rank one; with light damping a d − b² is rounding error alone."""
    v = rng.standard_normal((50, 2)).astype(np.float32)
    F, damping = v[:, :, None].astype(np.float64) * v[:, None, :], 1e-5
    block = unit_wise(F, count=1.0)
    block.refresh(tensor(np.array(damping)))
    eigenvalues = np.linalg.eigvalsh(block.inverse.asnumpy().astype(np.float64))
    expected = np.linalg.eigvalsh(np.linalg.inv(F + damping * np.eye(2)))
    assert eigenvalues.min() > 0
    # The large eigenvalue is 1/λ, to within float32's ε·|F|/λ of at most 1e-7·5/1e-5.
    np.testing.assert_allclose(eigenvalues[:, 1], expected[:, 1], rtol=5e-2)

    # Below float32's resolution of F: no entry of (F_c + λI)⁻¹ exceeds 1/λ, and the diagonal is positive.
    tiny = np.float32(1e-9)
    block.refresh(tensor(tiny))
    inverse = block.inverse.asnumpy()
    assert np.abs(inverse).max() <= 1.00001 / tiny
    assert inverse[:, [0, 1], [0, 1]].min() > 0


def test_embedding_block(mode: int, rng: np.random.Generator) -> None:
    a, matrix, damping = rng.random(5) * np.array([0, 1, 1, 2, 3]), rng.standard_normal((5, 3)), 0.3
    root = rng.standard_normal((3, 4))
    G = root @ root.T
    block = embedding(a, G)
    U, product, trace, observed = Everything(block)(tensor(matrix), tensor(np.array(damping)))
    expected = kronecker_solve(matrix.T, np.diag(a), G, damping).T
    # Conditions below 1e2 in float32.
    np.testing.assert_allclose(U.asnumpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(product.asnumpy(), a[:, None] * (matrix @ G), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trace.asnumpy(), a.sum() * np.trace(G), rtol=1e-5)
    np.testing.assert_allclose(observed.asnumpy(), a, rtol=1e-6)
    np.testing.assert_allclose(block.current_estimate(1)[0].asnumpy(), G, rtol=1e-5, atol=1e-6)


def blocks_without_statistics() -> list[CurvatureBlock]:
    described = [
        describe_batch_norm("batch", nn.BatchNorm2d(3)),
        describe_layer_norm("layer", nn.LayerNorm((2, 3), begin_norm_axis=1, begin_params_axis=1)),
        describe_embedding("embed", nn.Embedding(4, 3)),
    ]
    return [
        (EmbeddingBlock if layer.kind == "embedding" else UnitWiseBlock)(
            layer, prefix="test", options=OPTIONS
        )
        for layer in described
        if isinstance(layer, Layer)
    ]


def test_before_statistics_gradients_pass_unchanged(rng: np.random.Generator) -> None:
    blocks = blocks_without_statistics()
    assert len(blocks) == 3
    for block, shape in zip(blocks, ((3, 2), (6, 2), (4, 3))):
        matrix = rng.standard_normal(shape).astype(np.float32)
        for _ in range(2):
            np.testing.assert_array_equal(block.precondition(tensor(matrix)).asnumpy(), matrix)
            block.refresh(tensor(np.array(0.01)))


@pytest.mark.parametrize(
    ("code", "options", "opened"),
    [
        (0, OPTIONS, ""),
        (EVERYTHING, OPTIONS, "AG"),
        (CORRECTED_EIGENVALUES, OPTIONS, ""),
        (INPUTS, SEPARATE, "A"),
        (GRADIENTS, SEPARATE, "G"),
        (CORRECTED_EIGENVALUES, SEPARATE, ""),
    ],
)
def test_gates(code: int, options: StatisticsOptions, opened: str) -> None:
    """The gate's bits; a unit-wise block has one statistic and takes it with either bit."""
    gate = Parameter(ms.Tensor(code, ms.int32), name="gate", requires_grad=False)
    block = embedding(np.zeros(3), np.zeros((2, 2)), options)
    block.operator(tensor(np.array([[1, 1]])), tensor(np.ones((1, 2, 2))), gate, *block.staged)
    np.testing.assert_array_equal(block.A_batch.asnumpy(), [0, 2 if "A" in opened else 0, 0])
    np.testing.assert_array_equal(block.G_batch.asnumpy(), np.full((2, 2), 2 if "G" in opened else 0))
    weights = block.record.asnumpy()[STAGED_WEIGHTS:]
    np.testing.assert_array_equal(weights, [float("A" in opened), 2.0 * ("G" in opened)])
    norm = unit_wise(np.zeros((1, 2, 2)))
    norm.operator(tensor(np.array([[0.0], [1.0]])), tensor(np.ones((2, 1))), gate, *norm.staged)
    # N = 2 turns a mean loss's gradients of 1 into 2: Σ ∇β² = 4 + 4.
    np.testing.assert_array_equal(norm.squares_batch.asnumpy()[1], [8.0 if opened else 0.0])
    np.testing.assert_array_equal(norm.record.asnumpy()[STAGED_WEIGHTS:], [2.0 if opened else 0.0])
