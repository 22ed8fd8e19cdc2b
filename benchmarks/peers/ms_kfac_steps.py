"""Steps of this package and of ``nn.Momentum``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model_zoo.common.environment import limit_onednn

limit_onednn("CPU")

import mindspore as ms  # noqa: E402
from mindspore import nn  # noqa: E402

import ms_kfac  # noqa: E402
from benchmarks.peers.problems import DAMPING, LEARNING_RATE, MOMENTUM, Problem, intervals  # noqa: E402
from benchmarks.support.large_graph import LargeGraph  # noqa: E402
from model_zoo.common.networks import create_network  # noqa: E402


class PixelLoss(nn.Cell):
    """The binary cross-entropy, summed over pixels, mean over images."""

    def __init__(self) -> None:
        super().__init__()
        self.entropy = nn.BCEWithLogitsLoss(reduction="sum")

    def construct(self, logits: ms.Tensor, pixels: ms.Tensor) -> ms.Tensor:
        """Maps (N, P) and (N, P) to a scalar."""
        return self.entropy(logits, pixels) / logits.shape[0]


def create_step(library: str, problem: Problem, kind: str) -> Callable[[], Any]:
    """A training step in graph mode.

    Args:
        library: "ms_kfac" and the method's class name in lower case.
        problem: the network and the batch.
        kind: one of KINDS.

    Returns:
        A function that takes one step and waits for the loss.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    network = create_network(problem.name)
    if kind == "sgd":
        optimizer: nn.Cell = nn.Momentum(network.trainable_params(), LEARNING_RATE, MOMENTUM)
    else:
        method = getattr(ms_kfac, library.split()[1].upper())
        # Not plain ints, whose warm-up would add steps of other kinds.
        factors, inverses = map(ms_kfac.FixedInterval, intervals(kind))
        optimizer = method(
            network,
            LEARNING_RATE,
            momentum=MOMENTUM,
            damping=DAMPING,
            factor_interval=factors,
            inverse_interval=inverses,
        )
    loss = nn.CrossEntropyLoss() if problem.classifies else PixelLoss()
    cell = LargeGraph(nn.TrainOneStepCell(nn.WithLossCell(network, loss), optimizer))
    inputs, targets = ms.Tensor(problem.inputs), ms.Tensor(problem.targets)
    return lambda: cell(inputs, targets).asnumpy()
