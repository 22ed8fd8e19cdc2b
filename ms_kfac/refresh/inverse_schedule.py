"""Schedules of inverses: implement a policy by refreshing the blocks that are due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.refresh.due_inverses import DueInverses


class InverseSchedule(nn.Cell):
    """Base of the schedules of inverses. A call with the step number refreshes the inverses that are due.

    With ``allowed`` 0 the policy makes nothing due. ``allowed`` may be a Tensor, so that the caller needs no
    branch. A branch would have to be decided on the host, whereas kernels that are not due return
    immediately.

    The first statistics of a layer make a refresh due at any step. Otherwise a layer whose first batch was
    refused, or a run that goes on from the checkpoint of another optimizer, would have no inverse until the
    next interval.

    Args:
        blocks: the curvature blocks.
        damping: Cell that maps the step to the damping. It is called in every step, because a branch would
            have to be decided on the host. If several devices share the curvature work and layers are due
            together, it is called only when they are due.
        prefix: prefix of the Parameters' names.

    Attributes:
        served: number of weights with statistics at the last refresh, int32.
        distributed: whether the refreshes are distributed across ranks.
        by_layer: whether layers are refreshed at different steps.
        refreshes: number of refreshes so far, int32. It counts single layers, or all layers as one if they
            are due together.
    """

    def __init__(self, blocks: Sequence[Any], damping: nn.Cell, prefix: str) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(blocks, auto_prefix=False)
        self.due_inverses = DueInverses(blocks)
        self.damping = damping
        self.refreshes = Parameter(
            Tensor(0, ms.int32), name=f"{prefix}.inverse_refreshes", requires_grad=False
        )
        self.served = Parameter(Tensor(0, ms.int32), name=f"{prefix}.inverted", requires_grad=False)
        self.counts: Any = ParameterTuple(())
        self.cast = ops.Cast()
        self.greater = ops.Greater()
        self.reduce_sum = ops.ReduceSum()
        self.maximum = ops.Maximum()
        self.minimum = ops.Minimum()
        self.select = ops.Select()
        self.assign = ops.Assign()
        self.assign_add = ops.AssignAdd()
        self.by_layer = False
        self.distributed = False
        self.curvature: Any = None

    def watch(self, counts: Sequence[Parameter]) -> None:
        """Let first statistics make refreshes due.

        Args:
            counts: Parameters whose elements are positive once the statistics that they stand for exist. They
                must be equal on all ranks.
        """
        self.counts = ParameterTuple(counts)

    def or_first(self, due: Tensor) -> Tensor:
        """``due``, or 1 if a layer has its first statistics: scalar int32. Call it once per step."""
        total = self.served * 0
        for count in self.counts:
            total = total + self.reduce_sum(self.cast(count > 0, ms.int32))
        due = self.maximum(due.reshape(()), self.cast(self.greater(total, self.served), ms.int32))
        self.assign(self.served, self.select(due > 0, total, self.minimum(total, self.served)))
        return due

    def distribute(self, curvature: Any) -> None:
        """Distribute the refreshes: this rank refreshes the blocks that it owns and receives the others.

        Args:
            curvature: the collective communication
                (:class:`ms_kfac.parallel.distributed_curvature.DistributedCurvature`).
        """
        self.distributed = True
        self.curvature = curvature
        self.due_inverses = DueInverses(list(self.blocks), curvature.owned)

    def refresh_together(self, due: Tensor, step: Tensor) -> bool:
        """Refresh all blocks if the scalar ``due`` is not 0."""
        if self.distributed:
            if due > 0:
                self.curvature.average_due()
                self.due_inverses(due, self.damping(step))
                self.curvature.send_inverses()
        else:
            self.due_inverses(due, self.damping(step))
        return True

    def refresh_each(self, due: Tensor, number: Tensor, damping: Tensor) -> bool:
        """Refresh the ``number`` blocks that the vector ``due`` selects, from all-reduced statistics."""
        if self.distributed:
            if number > 0:
                self.due_inverses(due, damping)
                self.curvature.send_each(due)
        else:
            self.due_inverses(due, damping)
        return True

    def construct(self, step: Tensor, allowed: Any = 1) -> bool:
        """Refresh the inverses that are due at a step."""
        raise TypeError(f"{type(self).__name__} does not define construct(step, allowed)")


class UniformInverseSchedule(InverseSchedule):
    """Inverses of all layers at the same steps.

    Args:
        policy: decides whether a refresh is due at a step.
        blocks: the curvature blocks.
        damping: Cell that maps the step to the damping; see :class:`InverseSchedule`.
        prefix: prefix of the Parameters' names.
    """

    def __init__(self, policy: nn.Cell, blocks: Sequence[Any], damping: nn.Cell, prefix: str) -> None:
        super().__init__(blocks, damping, prefix)
        self.policy = policy

    def construct(self, step: Tensor, allowed: Any = 1) -> bool:
        due = self.or_first(self.cast(self.policy(step), ms.int32) * allowed)
        self.refresh_together(due, step)
        self.assign_add(self.refreshes, due)
        return True
