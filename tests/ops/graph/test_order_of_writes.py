"""What a compiled graph read before a kernel wrote in place stays what it was; what it reads after is new."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native
from ms_kfac.ops.refresh.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.step.adam_step import AdamStep
from ms_kfac.ops.step.momentum_step import MomentumStep
from ms_kfac.refresh.due_inverses import DueInverses
from tests.support.commits import Committing, Kept, Layer

pytestmark = pytest.mark.skipif(not is_native("commit_statistics"), reason="no native library")


def parameter(name: str, value: Any) -> Parameter:
    return Parameter(Tensor(np.asarray(value, np.float32)), name=name, requires_grad=False)


class Around(nn.Cell):
    """Reads Parameters, lets something write them, and returns what it read before and after."""

    def __init__(self, writer: nn.Cell, watched: list[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.writer = writer
        self.watched = ParameterTuple(watched)

    def construct(self, *inputs: Any) -> tuple[Tensor, ...]:
        before = ()
        for watched in self.watched:
            before = (*before, watched * 3.0)
        self.writer(*inputs)
        after = ()
        for watched in self.watched:
            after = (*after, watched + 0.0)
        return (*before, *after)


def check(around: Around, inputs: tuple[Any, ...], expected: list[Any]) -> None:
    values = [watched.asnumpy().copy() for watched in around.watched]
    outputs = [output.asnumpy() for output in around(*inputs)]
    for found, value in zip(outputs, values):
        np.testing.assert_allclose(found, 3.0 * value, rtol=1e-6)
    for found, value in zip(outputs[len(values) :], expected):
        np.testing.assert_allclose(found, value, rtol=1e-5)


# ε = 1/4: the past of one commit keeps d = (1/4) / (3/4) = 1/3.
DECAY = 0.25
COMMIT = (Tensor(1, ms.int32), Tensor([1.0, 1.0], ms.float32), Tensor(np.zeros((2, 3)), ms.float32))


def committed_layers() -> tuple[list[Layer], Committing]:
    """Two layers that have committed threes, with a batch staged."""
    layers = [Layer(name, [Kept((2,))], 1) for name in ("first", "second")]
    committing = Committing(layers, DECAY, native=True)
    for values in ([3.0, 3.0], [2.0, 4.0]):
        committing.run()
        for layer in layers:
            layer.put([values], [1.0])
    return layers, committing


def test_commit(mode: int) -> None:
    layers, committing = committed_layers()
    watched = [array for layer in layers for array in (layer.statistics[0].average, layer.weights)]
    watched += [committing.commit.past]
    check(Around(committing, watched), COMMIT, [[3.0, 5.0], [4 / 3]] * 2 + [[4 / 3] * 2])


class Restaged(nn.Cell):
    """Commits what is staged, stages another batch, and commits that."""

    def __init__(self, layer: Layer, committing: Committing) -> None:
        super().__init__(auto_prefix=False)
        self.committing = committing
        self.batch, self.record = layer.statistics[0].batch, layer.record
        self.assign = ops.Assign()

    def construct(self, due: Tensor, scales: Tensor, measured: Tensor, batch: Tensor, record: Tensor) -> bool:
        self.committing(due, scales, measured)
        self.assign(self.batch, batch)
        self.assign(self.record, record)
        self.committing(due, scales, measured)
        return True


def test_commit_of_what_was_staged_between_two(mode: int) -> None:
    layers, committing = committed_layers()
    record = layers[0].record.asnumpy()
    batch = Tensor([8.0, 16.0], ms.float32)
    Restaged(layers[0], committing)(*COMMIT, batch, Tensor(record))
    # W = 4/3 after the first, so d = (1/3) / (4/3) = 1/4.
    np.testing.assert_allclose(layers[0].averages()[0], [3 / 4 + 8, 5 / 4 + 16], rtol=1e-6)
    np.testing.assert_allclose(layers[1].averages()[0], [3.0, 5.0], rtol=1e-6)
    np.testing.assert_array_equal(layers[0].record.asnumpy(), [0, 1, 0, 0, 0, 0])


class Block(nn.Cell):
    """As much of a curvature block as a schedule's call for many layers asks for."""

    reporter = 0

    def __init__(self, name: str) -> None:
        super().__init__(auto_prefix=False)
        values = {"A_sum": [[3.0]], "G_sum": [[2.0]], "weights": [1.0, 1.0]}
        arrays = [parameter(f"{name}.{key}", value) for key, value in values.items()]
        arrays += [parameter(f"{name}.A_inverse", [[1.0]]), parameter(f"{name}.G_inverse", [[1.0]])]
        self.layer_refresh = KroneckerRefresh(name, arrays)

    def native_refresh(self) -> Any:
        return self.layer_refresh.spec


def test_refresh_of_several_layers(mode: int) -> None:
    blocks = [Block("first"), Block("second")]
    inverses = [array for block in blocks for array in list(block.layer_refresh.arrays)[3:]]
    # π² = 3 / 2: A gets π √λ and G √λ / π.
    pi, root = np.sqrt(1.5), 0.1
    expected = [[[1 / (3 + pi * root)]], [[1 / (2 + root / pi)]]] * 2
    check(Around(DueInverses(blocks), inverses), (Tensor(1, ms.int32), Tensor(root**2, ms.float32)), expected)


def test_momentum_step(mode: int) -> None:
    weights = [parameter(f"w{index}", [index + 1.0] * 3) for index in range(3)]
    moments = [parameter(f"v{index}", np.zeros(3)) for index in range(3)]
    flags = [False] * 3
    step = MomentumStep(
        *(weights, moments, parameter("momentum", 0.9)),
        **{"scaled": flags, "decayed": flags, "sources": range(3)},
        **{"nesterov": False, "decoupled": False, "own_rates": False, "own_decays": False},
    )
    rate = Tensor(0.1, ms.float32)
    updates = tuple(Tensor(np.full(3, 10.0 * (index + 1), np.float32)) for index in range(3))
    check(Around(step, weights), (rate, rate, rate, updates), [[0.0] * 3] * 3)


def test_adam_step(mode: int) -> None:
    """A first step is as long as the rate."""
    weights = [parameter(f"w{index}", [index + 1.0] * 3) for index in range(3)]
    flags = [False] * 3
    step = AdamStep(
        *(weights, [True] * 3, flags, flags, flags),
        **{"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "maps_rates": False, "maps_decays": False},
        name="adam",
    )
    rate = Tensor(0.5, ms.float32)
    gradients = tuple(Tensor(np.full(3, 10.0 * (index + 1), np.float32)) for index in range(3))
    expected = [[index + 0.5] * 3 for index in range(3)]
    check(Around(step, weights), (rate, rate, rate, rate, gradients), expected)
