"""Equal states on all ranks, for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import nn

from ms_kfac.ops.flat_buffer import Share
from ms_kfac.parallel.inverse_exchange import InverseExchange
from ms_kfac.parallel.shared_curvature import SharedCurvature
from ms_kfac.parallel.statistics_exchange import AveragedStatistics


class Synchronization(nn.Cell):
    """Averages all statistics over ranks and sends all inverses, whatever steps exchange.

    Args:
        blocks: the curvature blocks.
        curvature: says who owns them.

    Outputs:
        bool, True.
    """

    def __init__(self, blocks: Sequence[Any], curvature: SharedCurvature) -> None:
        super().__init__(auto_prefix=False)
        statistics = [share for block in blocks for share in block.statistic_shares()]
        known = {id(share.parameter) for share in statistics}
        self.statistics = AveragedStatistics(statistics, curvature.size)
        inverses: list[list[Share]] = [
            [
                share
                for index in owned
                for share in blocks[index].inverse_shares() + blocks[index].state_shares()
                if id(share.parameter) not in known
            ]
            for owned in curvature.of_rank
        ]
        self.inverses = InverseExchange(inverses, curvature.rank)

    def construct(self) -> bool:
        self.statistics()
        return self.inverses()
