"""Synchronization of the optimizer state over ranks, for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import nn

from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.parallel.distributed_curvature import DistributedCurvature
from ms_kfac.parallel.inverse_exchange import InverseExchange
from ms_kfac.parallel.statistics_exchange import AllReduceStatistics


class Synchronization(nn.Cell):
    """Averages all statistics over ranks and sends all inverses, regardless of what training steps exchange.

    Args:
        blocks: the curvature blocks.
        curvature: the distributed curvature, which assigns owners to blocks.

    Outputs:
        bool, True.
    """

    def __init__(self, blocks: Sequence[Any], curvature: DistributedCurvature) -> None:
        super().__init__(auto_prefix=False)
        statistics = [share for block in blocks for share in block.tensors_to_reduce()]
        known = {id(share.parameter) for share in statistics}
        self.statistics = AllReduceStatistics(statistics, curvature.size)
        inverses: list[list[SyncedTensor]] = [
            [
                share
                for index in owned
                for share in blocks[index].tensors_to_broadcast() + blocks[index].refresh_state()
                if id(share.parameter) not in known
            ]
            for owned in curvature.of_rank
        ]
        self.inverses = InverseExchange(inverses, curvature.rank)

    def construct(self) -> bool:
        self.statistics()
        return self.inverses()
