"""Carries out a policy for inverses: asks the blocks that are due to refresh theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.refresh.due_inverses import DueInverses


class InverseSchedule(nn.Cell):
    """Base of the schedules of inverses. Calling it with the step's number refreshes what is due.

    With ``allowed`` 0 nothing is due. It may be a Tensor: a branch around the call would have to be decided
    on the host, and kernels that are not due return at once.

    Args:
        blocks: the curvature blocks.
        damping: called with the step when inverses are due.
        prefix: what the names of Parameters start with.

    Attributes:
        distributed: whether ranks share the refreshes.
        by_layer: whether layers are refreshed at steps of their own.
        refreshes: inverses recomputed so far, int32: of one layer each, or of all together where they are due
            together.
    """

    def __init__(self, blocks: Sequence[Any], damping: nn.Cell, prefix: str) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(blocks, auto_prefix=False)
        self.due_inverses = DueInverses(blocks)
        self.damping = damping
        self.refreshes = Parameter(
            Tensor(0, ms.int32), name=f"{prefix}.inverse_refreshes", requires_grad=False
        )
        self.cast = ops.Cast()
        self.assign = ops.Assign()
        self.assign_add = ops.AssignAdd()
        self.by_layer = False
        self.distributed = False
        self.curvature: Any = None

    def distribute(self, curvature: Any) -> None:
        """Refresh here what this rank owns, and exchange the rest.

        Args:
            curvature: the exchanges (:class:`ms_kfac.parallel.shared_curvature.SharedCurvature`).
        """
        self.distributed = True
        self.curvature = curvature
        self.due_inverses = DueInverses(list(self.blocks), curvature.owned)

    def refresh_together(self, due: Tensor, step: Tensor) -> bool:
        """Refresh all blocks where a scalar says so."""
        if self.distributed:
            if due > 0:
                self.curvature.average_due()
                self.due_inverses(due, self.damping(step))
                self.curvature.send_inverses()
        else:
            self.due_inverses(due, self.damping(step))
        return True

    def refresh_each(self, due: Tensor, number: Tensor, damping: Tensor) -> bool:
        """Refresh the blocks that a vector names, ``number`` of them, from statistics that have met."""
        if self.distributed:
            if number > 0:
                self.due_inverses(due, damping)
                self.curvature.send_each(due)
        else:
            self.due_inverses(due, damping)
        return True

    def construct(self, step: Tensor, allowed: Any = 1) -> bool:
        """Refresh what is due."""
        raise TypeError(f"{type(self).__name__} does not define construct(step, allowed)")


class SharedInverses(InverseSchedule):
    """Inverses of all layers at the same steps.

    Args:
        policy: says whether a step is due.
        blocks: the curvature blocks.
        damping: called with the step when inverses are due.
        prefix: what the names of Parameters start with.
    """

    def __init__(self, policy: nn.Cell, blocks: Sequence[Any], damping: nn.Cell, prefix: str) -> None:
        super().__init__(blocks, damping, prefix)
        self.policy = policy

    def construct(self, step: Tensor, allowed: Any = 1) -> bool:
        due = (self.cast(self.policy(step), ms.int32) * allowed).reshape(())
        self.refresh_together(due, step)
        self.assign_add(self.refreshes, due)
        return True
