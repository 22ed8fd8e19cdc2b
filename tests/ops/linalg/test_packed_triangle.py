"""Symmetric matrices packed as one triangle and back."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest

from ms_kfac.ops.graph.flat_buffer import FlatBuffer, SyncedTensor
from ms_kfac.ops.linalg.packed_triangle import PackedTriangle

SHAPES = [(1, 1), (2, 2), (3, 3), (6, 6), (7, 7), (4, 1, 1), (3, 4, 4), (2, 5, 5)]


def symmetric(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    half = rng.standard_normal(shape).astype(np.float32)
    return half + np.swapaxes(half, -1, -2)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_number_of_a_triangle_is_there_once(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    matrices = symmetric(rng, shape)
    triangle = PackedTriangle(shape)
    packed = triangle(ms.Tensor(matrices)).asnumpy()
    rows, columns = np.triu_indices(shape[-1])
    assert packed.shape == (triangle.size,)
    np.testing.assert_array_equal(np.sort(packed), np.sort(matrices[..., rows, columns].reshape(-1)))
    np.testing.assert_array_equal(triangle.unpack(ms.Tensor(packed)).asnumpy(), matrices)


def test_unpacked_matrices_are_symmetric_to_the_bit(rng: np.random.Generator) -> None:
    """Whatever was packed: ranks and their owner go on with the same bits."""
    triangle = PackedTriangle((2, 7, 7))
    matrices = ms.Tensor(rng.standard_normal((2, 7, 7)), ms.float32)
    unpacked = triangle.unpack(triangle(matrices)).asnumpy()
    np.testing.assert_array_equal(unpacked, np.swapaxes(unpacked, -1, -2))


def test_a_buffer_holds_parameters_one_after_the_other(rng: np.random.Generator, mode: int) -> None:
    values = [symmetric(rng, (3, 3)), np.float32(4.0), rng.standard_normal((2, 5)).astype(np.float32)]
    parameters = [
        ms.Parameter(ms.Tensor(value, ms.float32), name=f"p{i}", requires_grad=False)
        for i, value in enumerate(values)
    ]
    shares = [
        SyncedTensor(parameters[0], symmetric=True),
        SyncedTensor(parameters[1]),
        SyncedTensor(parameters[2]),
    ]
    buffer = FlatBuffer(shares, length=20)
    assert (buffer.size, [share.size() for share in shares]) == (17, [6, 1, 10])
    flat = buffer().asnumpy()
    assert flat.shape == (20,)
    np.testing.assert_array_equal(flat[6:17], [4.0, *values[2].reshape(-1)])
    np.testing.assert_array_equal(flat[17:], 0.0)
    buffer.write(ms.Tensor(np.concatenate([np.zeros(2, np.float32), 2 * flat])), 2)
    for parameter, value in zip(parameters, values):
        np.testing.assert_array_equal(parameter.asnumpy(), 2 * value)
