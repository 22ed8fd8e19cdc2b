"""A training step in a large graph, so that MindSpore runs the operators of all methods in the same way."""

from __future__ import annotations

import mindspore as ms
import mindspore.nn as nn
from mindspore import Parameter, Tensor

# MindSpore 2.10 takes its other way only for graphs of at most 100 operators.
ADDITIONS = 100


class LargeGraph(nn.Cell):
    """Adds zero to a step's loss so often that the graph has more than 100 operators.

    On CPUs, MindSpore 2.10 has two ways to run a graph. For one with at most 100 operators and without
    control flow, on a machine with few processors, it puts its threads to sleep after each operator. Waking
    them makes the convnet's step with nn.Momentum a third slower. A second-order step has more operators and
    never runs in this way, so that a comparison as is would favour it.

    Args:
        train_network: a step, which returns its loss ().
    """

    def __init__(self, train_network: nn.Cell) -> None:
        """Makes the zero. It is a parameter, since the compiler would remove a constant."""
        super().__init__()
        self.train_network = train_network
        self.zero = Parameter(Tensor(0.0, ms.float32), name="zero", requires_grad=False)
        self.set_train()

    def construct(self, *batch: Tensor) -> Tensor:
        """Runs the step and returns its loss ()."""
        loss = self.train_network(*batch)
        for _ in range(ADDITIONS):
            loss = loss + self.zero
        return loss
