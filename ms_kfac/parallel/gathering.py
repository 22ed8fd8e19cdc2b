"""Vectors of unequal lengths, one a rank, joined on all ranks by one collective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.parallel import collectives
from ms_kfac.parallel.traffic import Collective


def pads(sizes: Sequence[int]) -> bool:
    """Whether equal parts, filled up with zeros, are the lesser way.

    The more ranks there are, the less alike are their layers, up to ranks without any. Equal parts then come
    to many times the numbers themselves, while an all-reduce never sends more than twice of them.

    Args:
        sizes: numbers of every rank.

    Returns:
        Whether the parts take at most twice the numbers.
    """
    return max(sizes) * len(sizes) <= 2 * sum(sizes)


class Gathering(nn.Cell):
    """Gives all ranks the vectors of all.

    An all-gather of equal parts, or an all-reduce of vectors with zeros in the place of the others' numbers:
    sums with zeros round nothing.

    Args:
        sizes: numbers of every rank, not all 0.
        rank: this one.

    Attributes:
        begins: where the numbers of each rank begin in the result.
        pads: whether by equal parts.
        length: numbers that go into the collective.

    Inputs:
        - **parts** (tuple[Tensor]) - this rank's numbers: float32 vectors, none where it has no numbers.
        - **token** (Any) - what the collective has to wait for, which on a rank without numbers nothing else
          would order behind the collectives before.

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
        """What the collective moves.

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
