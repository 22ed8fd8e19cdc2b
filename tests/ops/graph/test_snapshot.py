"""Values read before something writes the Parameters."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Parameter, nn, ops

from ms_kfac.ops.graph.snapshot import Snapshot


class Interrupted(nn.Cell):
    """Reads, overwrites, measures, restores: in one graph."""

    def __init__(self, parameters: list[Parameter]) -> None:
        super().__init__(auto_prefix=False)
        self.kept = Snapshot(parameters)
        self.targets = ms.ParameterTuple(parameters)

    def construct(self, written: tuple[ms.Tensor, ...]) -> tuple[ms.Tensor, ...]:
        values = self.kept.read()
        for index in range(len(self.targets)):
            ops.assign(self.targets[index], ops.depend(written[index], values))
        moved = self.kept.moved(values)
        return ops.depend(moved, self.kept.put_back(values, moved[0]))


def check(arrays: list[np.ndarray], written: list[np.ndarray]) -> None:
    parameters = [
        Parameter(ms.Tensor(value), name=f"value{index}", requires_grad=False)
        for index, value in enumerate(arrays)
    ]
    moved = Interrupted(parameters)(tuple(ms.Tensor(value) for value in written))
    for parameter, value, new, difference in zip(parameters, arrays, written, moved):
        np.testing.assert_array_equal(parameter.asnumpy(), value)
        np.testing.assert_array_equal(difference.asnumpy(), new - value)


def test_in_one_graph(mode: int, rng: np.random.Generator) -> None:
    """Float and int Parameters (a count of batches, as mint's BatchNorm keeps)."""
    arrays = [rng.standard_normal((3, 2)).astype(np.float32), np.array(7, np.int32), np.ones(4, np.float32)]
    check(arrays, [np.asarray(value * 3 + 1, value.dtype) for value in arrays])


@settings(max_examples=8)
@given(
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_shapes(shapes: list[tuple[int, ...]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes]
    check(arrays, [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes])
