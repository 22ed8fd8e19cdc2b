"""The collective operators that curvature goes through."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import ops


def all_reduce() -> Any:
    """Sums vectors over ranks; every rank gets the sum.

    Returns:
        The operator.
    """
    return ops.AllReduce(ops.ReduceOp.SUM)


def all_gather() -> Any:
    """Joins the vectors of all ranks, which are of one length, in the order of ranks.

    Returns:
        The operator.
    """
    return ops.AllGather()


def broadcast(root: int) -> Any:
    """Gives all ranks the vectors of one.

    Args:
        root: that rank.

    Returns:
        The operator, of a tuple of vectors.
    """
    return ops.Broadcast(root)


def has_reduce_scatter() -> bool:
    """Whether MindSpore has a ReduceScatter on the present device.

    Returns:
        False on CPU.
    """
    return ms.get_context("device_target") != "CPU"


def reduce_scatter() -> Any:
    """Sums vectors over ranks; rank r gets the r-th of as many equal parts as there are ranks.

    Returns:
        The operator.
    """
    return ops.ReduceScatter(ops.ReduceOp.SUM)
