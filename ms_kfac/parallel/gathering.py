"""Concatenation of vectors of unequal lengths, one per rank, by a single collective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.parallel import collectives
from ms_kfac.parallel.traffic import Collective


def pads(sizes: Sequence[int]) -> bool:
    """Whether a zero-padded all-gather moves at most as many bytes as an all-reduce.

    The more ranks there are, the more their sizes differ, up to ranks without layers. The padded parts then
    hold many times the actual elements. An all-reduce never sends more than twice the actual elements.

    Args:
        sizes: number of elements per rank.

    Returns:
        True if the padded parts hold at most twice the actual elements.
    """
    return max(sizes) * len(sizes) <= 2 * sum(sizes)


class Gathering(nn.Cell):
    """Gathers the vectors of all ranks on all ranks.

    It uses an all-gather of equal, zero-padded parts, or an all-reduce of vectors that are zero outside this
    rank's elements. The all-reduce is exact, because adding zeros does not round.

    Args:
        sizes: number of elements per rank, not all 0.
        rank: this rank.

    Attributes:
        begins: offset of each rank's elements in the result.
        pads: whether it uses the padded all-gather.
        length: number of elements that enter the collective.

    Inputs:
        - **parts** (tuple[Tensor]) - this rank's elements as float32 vectors; empty if it has none.
        - **token** (Any) - a value that the collective waits for. On a rank without elements nothing else
          orders it after earlier collectives.

    Outputs:
        Tensor, one vector.
    """

    def __init__(self, sizes: Sequence[int], rank: int) -> None:
        super().__init__(auto_prefix=False)
        self.pads = pads(sizes)
        part = max(sizes)
        if self.pads:
            self.begins = tuple(part * other for other in range(len(sizes)))
            self.before, self.behind = 0, part - sizes[rank]
            self.length = part
            self.collective: Any = collectives.all_gather()
        else:
            self.begins = tuple(sum(sizes[:other]) for other in range(len(sizes)))
            self.before, self.behind = self.begins[rank], sum(sizes[rank + 1 :])
            self.length = sum(sizes)
            self.collective = collectives.all_reduce()
        self.concat = ops.Concat()
        self.zeros = ops.Zeros()

    def traffic(self) -> Collective:
        """Describe the collective.

        Returns:
            Its operator and bytes.
        """
        return Collective("all_gather" if self.pads else "all_reduce", 4 * self.length)

    def construct(self, parts: tuple[Tensor, ...], token: Any) -> Tensor:
        if self.before > 0:
            parts = (ops.depend(self.zeros((self.before,), ms.float32), token), *parts)
        if self.behind > 0:
            parts = (*parts, ops.depend(self.zeros((self.behind,), ms.float32), token))
        return self.collective(self.concat(parts))
