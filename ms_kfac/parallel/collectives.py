"""The collective operators of the curvature exchanges."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import ops


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
