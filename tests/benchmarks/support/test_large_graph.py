"""A step in a large graph does what it does alone."""

from __future__ import annotations

import mindspore as ms
import mindspore.nn as nn
from mindspore import Parameter, Tensor

from benchmarks.support.large_graph import ADDITIONS, LargeGraph


class Halves(nn.Cell):
    """A step whose loss is half of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = Parameter(Tensor(4.0, ms.float32), name="loss", requires_grad=False)

    def construct(self, images: Tensor) -> Tensor:
        self.loss *= 0.5
        return self.loss + 0.0 * images.sum()


def test_a_large_graph_trains_as_its_step_does(mode: int) -> None:
    large = LargeGraph(Halves())
    assert [float(large(Tensor([1.0], ms.float32))) for _ in range(3)] == [2.0, 1.0, 0.5]
    # Every addition reaches the loss: none was removed by the compiler.
    large.zero.set_data(Tensor(1.0, ms.float32))
    assert float(large(Tensor([1.0], ms.float32))) == 0.25 + ADDITIONS
