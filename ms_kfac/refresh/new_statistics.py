"""Refresh of an inverse whenever its layer has new statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.statistics.layer_statistics import CORRECTED_EIGENVALUES
from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.inverse_schedule import InverseSchedule
from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.refresh.statistics_schedule import ScheduleOptions, StatisticsSchedule


class OnNewStatistics(RefreshPolicy):
    """An inverse is due at every step that takes statistics of its layer.

    Raises:
        ValueError: if the policy is given as ``factor_interval``, when the optimizer is created.
    """

    def for_statistics(self, blocks: Sequence[Any], options: ScheduleOptions) -> StatisticsSchedule:
        raise ValueError(
            "factor_interval: must be another policy, got OnNewStatistics; pass it as inverse_interval"
        )

    def for_inverses(
        self,
        blocks: Sequence[Any],
        damping: nn.Cell,
        gates: Sequence[Gate],
        stopped: Parameter | None,
        prefix: str,
    ) -> InverseSchedule:
        return InversesOfNewStatistics(blocks, damping, gates, prefix)

    def __repr__(self) -> str:
        return "with new statistics"


class InversesOfNewStatistics(InverseSchedule):
    """Refreshes the blocks whose gate was open in this step.

    Args:
        blocks: the curvature blocks.
        damping: Cell that maps the step to the damping; see :class:`InverseSchedule`.
        gates: the gate of each block.
        prefix: prefix of the Parameters' names.
    """

    def __init__(self, blocks: Sequence[Any], damping: nn.Cell, gates: Sequence[Gate], prefix: str) -> None:
        super().__init__(blocks, damping, prefix)
        distinct = list(dict.fromkeys(gates))
        self.pending = ParameterTuple([gate.pending for gate in distinct])
        self.shared = len(distinct) < len(blocks)
        self.by_layer = not self.shared
        # EKFAC takes corrected eigenvalues in addition to the factors; they do not require a new basis.
        self.beside_factors = CORRECTED_EIGENVALUES
        self.stack = ops.Stack()

    def construct(self, step: Tensor, allowed: Any = 1) -> bool:
        if self.shared:
            due = (self.cast(self.pending[0] % self.beside_factors > 0, ms.int32) * allowed).reshape(())
            self.assign_add(self.refreshes, due)
            self.refresh_together(due, step)
        else:
            codes: tuple[Tensor, ...] = ()
            for pending in self.pending:
                codes = (*codes, pending.reshape(()))
            due = self.cast(self.stack(codes) % self.beside_factors > 0, ms.int32) * allowed
            number = self.reduce_sum(due)
            self.assign_add(self.refreshes, number)
            if self.distributed:  # noqa: SIM102
                if number > 0:
                    self.curvature.average_due()
            self.refresh_each(due, number, self.damping(step))
        return True
