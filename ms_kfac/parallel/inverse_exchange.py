"""Owners send what their refreshes have written."""

from __future__ import annotations

from collections.abc import Sequence

from mindspore import nn

from ms_kfac.ops.flat_buffer import FlatBuffer, Share
from ms_kfac.parallel import collectives


class InverseExchange(nn.Cell):
    """Every rank gets every owner's Parameters, in one all-gather of equal shares.

    The owner writes its own as well: unpacking makes matrices symmetric to the bit, and ranks that went on
    with different bits would drift apart.

    Args:
        shares: of every rank, what the layers that it owns send.
        rank: this one.

    Attributes:
        length: numbers that each rank sends, those that fill up shorter shares included.

    Outputs:
        bool, True.
    """

    def __init__(self, shares: Sequence[Sequence[Share]], rank: int) -> None:
        super().__init__(auto_prefix=False)
        self.length = max(sum(share.size() for share in own) for own in shares)
        self.flat_parts = nn.CellList([FlatBuffer(own, self.length) for own in shares], auto_prefix=False)
        self.own = FlatBuffer(shares[rank], self.length)
        self.all_gather = collectives.all_gather()

    def construct(self) -> bool:
        gathered = self.all_gather(self.own())
        for index in range(len(self.flat_parts)):
            self.flat_parts[index].write(gathered, index * self.length)
        return True
