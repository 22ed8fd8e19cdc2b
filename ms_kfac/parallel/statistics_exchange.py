r"""Reduction of the statistics over ranks.

Statistics are sums S with weights n. Everything between two refreshes is linear in them: batches add up, and
the decay factor is the same on all ranks. The statistics of the global batch are therefore
:math:`\sum_r S_r / \sum_r n_r` at any time. Statistics are all-reduced lazily, when they are read: when
inverses are due. Reduce-scatter preserves the sums over ranks of S and n; the all-reduce also does, because
each of the R ranks then holds 1 / R of them. Both can be repeated any number of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.graph.flat_buffer import FlatBuffer, SyncedTensor
from ms_kfac.parallel import collectives


class AllReduceStatistics(nn.Cell):
    r"""Averages statistics over ranks, with the result on all ranks.

    .. math::
        S \leftarrow \frac1R \sum_r S_r, \qquad n \leftarrow \frac1R \sum_r n_r

    Args:
        shares: sums and weights, at least one.
        ranks: number of ranks R.

    Attributes:
        length: number of elements in the collective.

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
    """Averages the statistics taken in a step, by one :class:`AllReduceStatistics` per statistic.

    Args:
        shares: sums and weights of each statistic.
        ranks: number of ranks.

    Attributes:
        length: number of elements in the collectives if all statistics were taken.

    Inputs:
        - **taken** (Tensor) - shape (statistics,), positive for statistics that the step has taken.

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
    r"""Sums statistics on their owners: :math:`S \leftarrow \sum_r S_r`, :math:`n \leftarrow \sum_r n_r`.

    All other ranks reset these statistics to 0.

    Args:
        shares: per rank, the sums and weights of the layers that it owns.
        rank: this rank.

    Attributes:
        length: number of elements in the collective, including padding.

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
