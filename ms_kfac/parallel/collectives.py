"""The collective operators of the curvature exchanges, and the gathering of vectors of unequal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.parallel.traffic import Collective, padded_gather_is_cheaper


def all_reduce() -> Any:
    """Create the operator that sums vectors over ranks and returns the sum on all ranks.

    Returns:
        The operator.
    """
    return ops.AllReduce(ops.ReduceOp.SUM)


def all_gather() -> Any:
    """Create the operator that concatenates equally long vectors of all ranks, in rank order.

    Returns:
        The operator.
    """
    return ops.AllGather()


def broadcast(root: int) -> Any:
    """Create the operator that sends the vectors of one rank to all ranks.

    Args:
        root: the rank that sends.

    Returns:
        The operator. It takes a tuple of vectors.
    """
    return ops.Broadcast(root)


def has_reduce_scatter() -> bool:
    """Whether MindSpore has ReduceScatter on the current device target.

    Returns:
        False on CPU, else True.
    """
    return ms.get_context("device_target") != "CPU"


def reduce_scatter() -> Any:
    """Create the operator that sums vectors over ranks and scatters the sum.

    The sum is split into one equal part per rank; rank r gets the r-th part.

    Returns:
        The operator.
    """
    return ops.ReduceScatter(ops.ReduceOp.SUM)


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
        self.pads = padded_gather_is_cheaper(sizes)
        part = max(sizes)
        if self.pads:
            self.begins = tuple(part * other for other in range(len(sizes)))
            self.before, self.behind = 0, part - sizes[rank]
            self.length = part
            self.collective: Any = all_gather()
        else:
            self.begins = tuple(sum(sizes[:other]) for other in range(len(sizes)))
            self.before, self.behind = self.begins[rank], sum(sizes[rank + 1 :])
            self.length = sum(sizes)
            self.collective = all_reduce()
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
