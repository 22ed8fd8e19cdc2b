r"""Where the statistics of all ranks meet.

Statistics are sums S with weights n, and everything between two refreshes is linear in them: batches add, the
past fades by a factor that is the same on all ranks. The statistics of the global batch are therefore
:math:`\sum_r S_r` over :math:`\sum_r n_r` whenever one looks, so that they need to meet only when somebody
does: when inverses are due. Both ways here leave these sums over ranks as they are, or R times less for S and
n alike, and can be taken any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.graph.flat_buffer import FlatBuffer, SyncedTensor
from ms_kfac.parallel import collectives


class AllReduceStatistics(nn.Cell):
    r"""Every rank gets :math:`S \leftarrow \frac1R \sum_r S_r`, :math:`n \leftarrow \frac1R \sum_r n_r`.

    Args:
        shares: sums and weights, at least one.
        ranks: their number R.

    Attributes:
        length: numbers in the collective.

    Outputs:
        bool, True.
    """

    def __init__(self, shares: Sequence[SyncedTensor], ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.buffer = FlatBuffer(shares)
        self.length = self.buffer.length
        self.all_reduce = collectives.all_reduce()
        self.share = 1.0 / ranks

    def construct(self) -> bool:
        self.buffer.write(self.all_reduce(self.buffer()) * self.share)
        return True


class PerStatisticAllReduce(nn.Cell):
    """Averages, as :class:`AllReduceStatistics` does, the statistics that a step has taken, one by one.

    Args:
        shares: sums and weights of every statistic.
        ranks: their number.

    Attributes:
        length: numbers in the collectives where all statistics have been taken.

    Inputs:
        - **taken** (Tensor) - shape (statistics,), positive for those.

    Outputs:
        bool, True.
    """

    def __init__(self, shares: Sequence[Sequence[SyncedTensor]], ranks: int) -> None:
        super().__init__(auto_prefix=False)
        self.statistics = nn.CellList([AllReduceStatistics(own, ranks) for own in shares], auto_prefix=False)
        self.length = sum(statistic.length for statistic in self.statistics)

    def construct(self, taken: Tensor) -> bool:
        for index in range(len(self.statistics)):
            if taken[index] > 0:
                self.statistics[index]()
        return True


class ReduceScatterStatistics(nn.Cell):
    r"""The owner gets :math:`S \leftarrow \sum_r S_r`, :math:`n \leftarrow \sum_r n_r`, others start at 0.

    Args:
        shares: of every rank, the sums and weights of the layers that it owns.
        rank: this one.

    Attributes:
        length: numbers in the collective, those that fill up shorter shares included.

    Outputs:
        bool, True.
    """

    def __init__(self, shares: Sequence[Sequence[SyncedTensor]], rank: int) -> None:
        super().__init__(auto_prefix=False)
        part = max(sum(share.size() for share in own) for own in shares)
        self.flat_parts = nn.CellList([FlatBuffer(own, part) for own in shares], auto_prefix=False)
        self.length = part * len(shares)
        self.own = FlatBuffer(shares[rank], part)
        foreign = [share.parameter for owner, own in enumerate(shares) if owner != rank for share in own]
        self.foreign = ParameterTuple(foreign)
        self.reduce_scatter = collectives.reduce_scatter()
        self.concat = ops.Concat()
        self.assign = ops.Assign()

    def construct(self) -> bool:
        parts: tuple[Any, ...] = ()
        for buffer in self.flat_parts:
            parts = (*parts, buffer())
        self.own.write(self.reduce_scatter(self.concat(parts)))
        for parameter in self.foreign:
            self.assign(parameter, parameter * 0.0)
        return True
