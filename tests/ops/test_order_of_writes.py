"""What a compiled graph read before a kernel wrote in place stays what it was; what it reads after is new."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.decay import Decay, FadesWhile
from ms_kfac.ops.kronecker_refresh import KroneckerRefresh
from ms_kfac.ops.momentum_step import MomentumStep
from ms_kfac.refresh.due_inverses import DueInverses
from tests.support.native import needs_native

pytestmark = needs_native("decay")


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


def test_decay(mode: int) -> None:
    values = [parameter("a", [2.0, 2.0]), parameter("b", 4.0)]
    around = Around(Decay(values, [0, 0]), values)
    check(around, (Tensor(1, ms.int32), Tensor([0.5], ms.float32)), [[1.0, 1.0], 2.0])


class Lowered(nn.Cell):
    """Lets something fade while a flag is up, lowers the flag, lets it fade again, and raises the flag."""

    def __init__(self, decay: Decay, flag: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.decay = decay
        self.flag = flag
        self.assign = ops.Assign()

    def construct(self, due: Tensor, factors: Tensor, low: Tensor, high: Tensor) -> bool:
        self.decay(due, factors)
        self.assign(self.flag, low)
        self.decay(due, factors)
        self.assign(self.flag, high)
        return True


def test_decay_reads_flags_in_their_order(mode: int) -> None:
    flag, whole, partly = parameter("flag", 1.0), parameter("a", [2.0, 2.0]), parameter("b", [8.0, 8.0])
    fading = [FadesWhile(whole, flag), FadesWhile(partly, flag, 1)]
    low, high = (Tensor(value, ms.float32) for value in (0.0, 1.0))
    Lowered(Decay(fading, [0, 0]), flag)(Tensor(1, ms.int32), Tensor([0.5], ms.float32), low, high)
    np.testing.assert_array_equal(whole.asnumpy(), [1.0, 1.0])
    np.testing.assert_array_equal(partly.asnumpy(), [4.0, 2.0])
    assert float(flag.asnumpy()) == 1.0


class Block(nn.Cell):
    """As much of a curvature block as a schedule's call for many layers asks for."""

    def __init__(self, name: str) -> None:
        super().__init__(auto_prefix=False)
        values = {"A_sum": [[3.0]], "A_count": 1.0, "G_sum": [[2.0]], "G_count": 1.0}
        arrays = [parameter(f"{name}.{key}", value) for key, value in values.items()]
        arrays += [parameter(f"{name}.A_inverse", [[1.0]]), parameter(f"{name}.G_inverse", [[1.0]])]
        self.layer_refresh = KroneckerRefresh(name, arrays)

    def native_refresh(self) -> Any:
        return self.layer_refresh.part


def test_refresh_of_several_layers(mode: int) -> None:
    blocks = [Block("first"), Block("second")]
    inverses = [array for block in blocks for array in list(block.layer_refresh.arrays)[4:]]
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
