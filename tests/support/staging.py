"""Batches staged by hand and committed, outside of any optimizer."""

from __future__ import annotations

import itertools
from typing import Any

import mindspore as ms
import numpy as np

from ms_kfac.ops.statistics.layer_statistics import EVERYTHING
from ms_kfac.statistics.commit import CommitStatistics
from tests.support.bank import tensor

_numbers = itertools.count()


def accept(told: np.ndarray) -> np.ndarray:
    """A judge that commits what is finite."""
    return np.stack([told[:, 8], told[:, 1], np.ones(len(told)), np.zeros(len(told))], axis=1)


class Committed:
    """Commits the batches of one block, as an optimizer's steps do."""

    def __init__(self, block: Any, decay: float = 0.95, loss_scale: float = 1.0) -> None:
        self.block = block
        self.commit = CommitStatistics([block], decay, accept, name=f"committed{next(_numbers)}")
        self.scales = ms.Tensor([1.0 / loss_scale, 1.0], ms.float32)

    def add(self, batch: tuple[np.ndarray, np.ndarray], gate: int = EVERYTHING) -> None:
        """Stages (x, dout) and commits it."""
        opened = ms.Parameter(ms.Tensor(gate, ms.int32), name="gate", requires_grad=False)
        x, dout = map(tensor, batch)
        self.block.operator.as_graph(x, dout, opened, *self.block.staged)
        self.commit(ms.Tensor(1, ms.int32), self.scales, ms.Tensor(np.zeros((1, 3), np.float32)))


def set_averages(block: Any, weights: list[float], **averages: np.ndarray) -> None:
    """Puts averages into a block: `A` becomes the weighted sum A_sum, by the statistic's weight."""
    for statistic in block.statistics:
        if statistic.name in averages:
            total = np.asarray(averages[statistic.name]) * weights[statistic.weight]
            statistic.estimated().set_data(tensor(total))
    block.weights.set_data(tensor(np.array(weights)))
