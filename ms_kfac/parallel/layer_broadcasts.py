"""Owners send the inverses of single layers, where layers are refreshed at steps of their own."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import Tensor, nn

from ms_kfac.ops.graph.flat_buffer import FlatBuffer, SyncedTensor
from ms_kfac.parallel import collectives


class _LayerBroadcast(nn.Cell):
    """One layer's Parameters, from its owner to all.

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
    """A broadcast for each layer that is due.

    The owner writes its own as well, for the reason that
    :class:`ms_kfac.parallel.inverse_exchange.InverseExchange` gives.

    Args:
        shares: of every layer, what its owner sends; maybe nothing.
        owners: of the layers.

    Attributes:
        length: numbers that are sent where all layers are due.

    Inputs:
        - **due** (Tensor) - int32, shape (layers,).

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
