"""Exchange of refreshed inverses between owners and all ranks."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import nn

from ms_kfac.ops.graph.flat_buffer import FlatBuffer, SyncedTensor
from ms_kfac.parallel.gathering import Gathering


class InverseExchange(nn.Cell):
    """Sends the Parameters of all owners to all ranks, in one collective.

    Owners also overwrite their own Parameters with the result. Unpacking makes matrices bitwise symmetric,
    and ranks that continue with different bits drift apart.

    Args:
        shares: per rank, the Parameters that its own layers send; at least one rank sends some.
        rank: this rank.

    Attributes:
        gathering: the collective.

    Outputs:
        bool, True.
    """

    def __init__(self, shares: Sequence[Sequence[SyncedTensor]], rank: int) -> None:
        super().__init__(auto_prefix=False)
        sizes = [sum(share.size() for share in own) for own in shares]
        self.gathering = Gathering(sizes, rank)
        senders = [other for other, own in enumerate(shares) if own]
        self.received = nn.CellList([FlatBuffer(shares[other]) for other in senders], auto_prefix=False)
        self.begins = tuple(self.gathering.begins[other] for other in senders)
        self.has_own = sizes[rank] > 0
        self.own = FlatBuffer(shares[rank]) if self.has_own else self.received[0]

    def construct(self) -> bool:
        gathered = self.gathering((self.own(),) if self.has_own else (), self.own.parameters[0])
        for index in range(len(self.begins)):
            self.received[index].write(gathered, self.begins[index])
        return True
