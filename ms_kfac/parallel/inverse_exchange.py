"""Exchange of refreshed inverses: owners send them to all ranks, for all layers together or per layer."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn

from ms_kfac.ops.graph.flat_buffer import FlatBuffer, SyncedTensor
from ms_kfac.parallel import collectives
from ms_kfac.parallel.collectives import Gathering


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


class _LayerBroadcast(nn.Cell):
    """Broadcasts the Parameters of one layer from its owner to all ranks.

    Args:
        shares: the Parameters, at least one.
        owner: the rank that sends.
    """

    def __init__(self, shares: Sequence[SyncedTensor], owner: int) -> None:
        super().__init__(auto_prefix=False)
        self.flat = FlatBuffer(shares)
        self.broadcast = collectives.broadcast(owner)

    def construct(self) -> bool:
        received = self.broadcast((self.flat(),))
        self.flat.write(received[0])
        return True


class LayerBroadcasts(nn.Cell):
    """Broadcasts the inverses of each layer that is due.

    Owners also overwrite their own Parameters with the result, for the reason given in
    :class:`InverseExchange`.

    Args:
        shares: per layer, the Parameters that its owner sends; possibly none.
        owners: the owner of each layer.

    Attributes:
        length: number of elements sent if all layers are due.

    Inputs:
        - **due** (Tensor) - int32, shape (layers,), positive for layers that are due.

    Outputs:
        bool, True.
    """

    def __init__(self, shares: Sequence[Sequence[SyncedTensor]], owners: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        self.layers = tuple(index for index, own in enumerate(shares) if own)
        self.length = sum(share.size() for own in shares for share in own)
        self.broadcasts = nn.CellList(
            [_LayerBroadcast(shares[index], owners[index]) for index in self.layers], auto_prefix=False
        )

    def construct(self, due: Tensor) -> bool:
        for place in range(len(self.layers)):
            if due[self.layers[place]] > 0:
                self.broadcasts[place]()
        return True
