"""Distributed curvature of one optimizer: layer ownership, and the exchanges between ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.statistics.layer_statistics import PRODUCT, SCALE
from ms_kfac.parallel import collectives
from ms_kfac.parallel.assignment import place, refresh_work
from ms_kfac.parallel.collectives import Gathering
from ms_kfac.parallel.distribution import Distribution, World
from ms_kfac.parallel.inverse_exchange import InverseExchange, LayerBroadcasts
from ms_kfac.parallel.statistics_exchange import (
    AllReduceStatistics,
    PerStatisticAllReduce,
    ReduceScatterStatistics,
)
from ms_kfac.parallel.traffic import Collective, Traffic, padded_gather_is_cheaper

_BYTES = 4


class DistributedCurvature(nn.Cell):
    """Exchanges the statistics and inverses of an optimizer's curvature blocks between ranks.

    Collectives are only in branches that all ranks take together.

    Args:
        blocks: the curvature blocks, at least one.
        world: the ranks.
        distribution: what is exchanged, and how.
        read_when_new: whether a refresh policy reads statistics whenever there are new ones.
        separate: whether each statistic of each layer has its own schedule.
        by_layer: whether the inverses of each layer have their own refresh schedule.
        read_by_all_reason: why all ranks read all statistics, in addition to the reasons of the blocks; ""
            if there is no such reason.

    Attributes:
        owners: the rank that owns each block.
        owned: the blocks of this rank.
        collective: "all_reduce" or "reduce_scatter".
        exchange: "inverses" or "gradients".

    Raises:
        ValueError: if a block's statistics are not additive over ranks, or ``collective="reduce_scatter"``
            is not possible.
    """

    def __init__(
        self,
        blocks: Sequence[Any],
        world: World,
        distribution: Distribution,
        *,
        read_when_new: bool,
        separate: bool,
        by_layer: bool,
        read_by_all_reason: str,
    ) -> None:
        super().__init__(auto_prefix=False)
        for block in blocks:
            if block.not_additive_reason:
                raise ValueError(
                    "parallel_mode must be 'stand_alone' and distribution None with more than one rank, as "
                    f"{block.not_additive_reason}; got {world.size} ranks"
                )
        self.size, self.rank = world.size, world.rank
        self.exchange = distribution.exchange
        sent = [block.tensors_to_broadcast() + block.refresh_state() for block in blocks]
        self._unused: set[int] = set()
        self.owners = place([refresh_work(shares) for shares in sent], world.size)
        ranks = range(world.size)
        self.of_rank = tuple(
            tuple(index for index, owner in enumerate(self.owners) if owner == rank) for rank in ranks
        )
        self.owned = self.of_rank[world.rank]

        in_turn = read_when_new and separate
        at_once = [
            block.tensors_to_reduce() if read_when_new and not separate else block.current_shares()
            for block in blocks
        ]
        taken = {id(share.parameter) for shares in at_once for share in shares}
        later = [
            []
            if in_turn
            else [share for share in block.tensors_to_reduce() if id(share.parameter) not in taken]
            for block in blocks
        ]
        self.new: Any = _averages([share for shares in at_once for share in shares], world.size)
        self.has_new = self.new is not None
        self.turns: Any = PerStatisticAllReduce(_statistics(blocks), world.size) if in_turn else None
        self.in_turn = in_turn
        self.averages_new = self.has_new or in_turn
        sizes = [sum(share.size() for share in own) for own in self._by_rank(later)]
        self.collective = _collective(blocks, distribution.collective, read_by_all_reason, sizes)
        if self.collective == "reduce_scatter":
            self.due: Any = ReduceScatterStatistics(self._by_rank(later), world.rank)
        else:
            self.due = _averages([share for shares in later for share in shares], world.size)
        self.averages_due = self.due is not None
        if self.exchange == "gradients":
            sent = [block.refresh_state() for block in blocks]
            foreign = [block for block, owner in zip(blocks, self.owners) if owner != world.rank]
            self._unused = {
                id(share.parameter) for block in foreign for share in block.tensors_to_broadcast()
            }
        self.sends = any(sent)
        self.inverses: Any = None
        if self.sends and by_layer:
            self.inverses = LayerBroadcasts(sent, self.owners)
        elif self.sends:
            self.inverses = InverseExchange(self._by_rank(sent), world.rank)
        self.by_layer = by_layer
        following = [block for block in blocks if block.applies_remote_refresh]
        self.following = nn.CellList(following, auto_prefix=False)
        self.all_reduce = collectives.all_reduce()
        self.slice = ops.Slice()
        self.concat = ops.Concat()
        self.assign = ops.Assign()
        self.scale = 1.0 / world.size if world.averages_gradients else 1.0

    def _by_rank(self, shares: Sequence[Sequence[SyncedTensor]]) -> list[list[SyncedTensor]]:
        return [[share for index in own for share in shares[index]] for own in self.of_rank]

    def unused(self) -> set[int]:
        """Ids of the Parameters that no step of this rank uses: the inverses of other owners."""
        return self._unused

    def average_new(self, taken: Tensor) -> bool:
        """Average new statistics that are read at once. Call it in steps that have taken statistics."""
        if self.has_new:
            self.new()
        if self.in_turn:
            self.turns(taken)
        return True

    def average_due(self) -> bool:
        """Reduce the statistics over ranks, before they are read."""
        if self.averages_due:
            self.due()
        return True

    def send_inverses(self) -> bool:
        """Send the recomputed inverses of all layers from owners to all ranks."""
        if self.sends:
            self.inverses()
        return self.apply_remote_refresh()

    def send_each(self, due: Tensor) -> bool:
        """Send the recomputed inverses of the layers that were due from owners to all ranks."""
        if self.sends:
            self.inverses(due)
        return self.apply_remote_refresh()

    def apply_remote_refresh(self) -> bool:
        """Apply the local side effects of remote refreshes."""
        for block in self.following:
            block.apply_remote_refresh()
        return True

    def meet_products(self, records: tuple[Parameter, ...]) -> bool:
        """Reduce the inner products of the capture check over ranks, to those of the global batch.

        Args:
            records: per layer, the record of the staged batch.

        Returns:
            True.
        """
        count = SCALE - PRODUCT + 1
        products: tuple[Tensor, ...] = ()
        for record in records:
            products = (*products, self.slice(record, (PRODUCT,), (count,)))
        met = self.all_reduce(self.concat(products)) * self.scale
        for index in range(len(records)):
            record = records[index]
            behind = record.shape[0] - SCALE - 1
            parts = (
                self.slice(record, (0,), (PRODUCT,)),
                self.slice(met, (count * index,), (count,)),
                self.slice(record, (SCALE + 1,), (behind,)),
            )
            self.assign(record, self.concat(parts))
        return True

    def as_gradients(self, value: Tensor) -> Tensor:
        """Reduce a scalar as gradients are reduced: averaged over ranks if they are, else summed."""
        total = self.all_reduce(ops.reshape(ops.cast(value, ms.float32), (1,)))
        return ops.reshape(total, ()) * self.scale

    def traffic(self, gradients: Gathering | None) -> Traffic:
        """Describe the traffic of the exchanges.

        Args:
            gradients: the collective of preconditioned gradients; None if they are not sent.

        Returns:
            Owners and bytes.
        """
        new = (self.new.length if self.has_new else 0) + (self.turns.length if self.in_turn else 0)
        inverses = None
        if self.sends:
            inverses = (
                Collective("broadcast", _BYTES * self.inverses.length)
                if self.by_layer
                else self.inverses.gathering.traffic()
            )
        return Traffic(
            ranks=self.size,
            owners=self.owners,
            statistics=Collective(self.collective, _BYTES * self.due.length) if self.averages_due else None,
            new_statistics=Collective("all_reduce", _BYTES * new) if new > 0 else None,
            inverses=inverses,
            gradients=None if gradients is None else gradients.traffic(),
        )

    def __repr__(self) -> str:
        return f"{self.size} ranks by {self.collective}, exchange {self.exchange!r}"


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


def _statistics(blocks: Sequence[Any]) -> list[tuple[SyncedTensor, ...]]:
    return [block.shares_of(group) for block in blocks for group in range(len(block.groups_of_statistics()))]


def _averages(shares: Sequence[SyncedTensor], ranks: int) -> AllReduceStatistics | None:
    return AllReduceStatistics(shares, ranks) if shares else None


def _collective(blocks: Sequence[Any], asked: str, read_by_all_reason: str, sizes: Sequence[int]) -> str:
    reasons = [block.read_by_all_reason for block in blocks if block.read_by_all_reason]
    reason = read_by_all_reason or next(iter(reasons), "")
    if asked == "all_reduce":
        return asked
    scatters = collectives.has_reduce_scatter()
    if asked == "auto":
        scatters = scatters and not reason and padded_gather_is_cheaper(sizes)
        return "reduce_scatter" if scatters else "all_reduce"
    if not scatters:
        reason = "MindSpore has no ReduceScatter on a CPU"
    if reason:
        raise ValueError(f"collective must be 'auto' or 'all_reduce', as {reason}, got 'reduce_scatter'")
    return asked
