"""Policies that decide when statistics are taken or inverses recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter, Tensor, nn

from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.inverse_schedule import InverseSchedule, UniformInverseSchedule
from ms_kfac.refresh.statistics_schedule import ScheduleOptions, StatisticsSchedule, UniformStatisticsSchedule


class RefreshPolicy(nn.Cell):
    """Base of refresh policies: a Cell, so that the compiled step makes the decision.

    A policy that depends only on the step, for all layers at once, defines :meth:`construct`. A policy that
    decides per layer overrides :meth:`for_statistics` or :meth:`for_inverses`. A policy has no state: the
    schedule that these methods return holds the state of one optimizer.

    Inputs:
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor of bool, shape (1,): whether a refresh is due at this step. Step 0 must be due.

    Attributes:
        warm_up_refreshes: number of refreshes that a warm-up adds to those of the interval.
        separate: whether statistics of inputs and of output gradients are refreshed at different steps.
        by_layer: whether inverses of different layers are refreshed at different steps.
        reads_statistics: whether the policy reads statistics, which must be all-reduced before.
    """

    warm_up_refreshes = 0
    separate = False
    by_layer = False
    reads_statistics = False

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    def construct(self, step: Tensor) -> Tensor:
        """Return whether a refresh is due at a step."""
        raise TypeError(
            f"{type(self).__name__} must define construct(self, step), which returns whether a refresh is due"
        )

    def for_statistics(self, blocks: Sequence[Any], options: ScheduleOptions) -> StatisticsSchedule:
        """Create the schedule of an optimizer's statistics for this policy.

        Args:
            blocks: the curvature blocks.
            options: options of the schedule.

        Returns:
            The schedule.
        """
        return UniformStatisticsSchedule(self, blocks, options)

    def for_inverses(
        self,
        blocks: Sequence[Any],
        damping: nn.Cell,
        gates: Sequence[Gate],
        stopped: Parameter | None,
        prefix: str,
    ) -> InverseSchedule:
        """Create the schedule of an optimizer's inverses for this policy.

        Args:
            blocks: the curvature blocks.
            damping: Cell that maps the step to the damping. The schedule may call it in every step.
            gates: the gate of each block.
            stopped: the result of :meth:`stopped_layers`.
            prefix: prefix of the Parameters' names.

        Returns:
            The schedule.
        """
        return UniformInverseSchedule(self, blocks, damping, prefix)

    def stopped_layers(self, count: int, prefix: str) -> Parameter | None:
        """Create one flag per layer for layers that are no longer refreshed.

        Args:
            count: number of layers.
            prefix: prefix of the Parameter's name.

        Returns:
            float32 of shape (count,), 1 for a layer that has stopped; None if layers never stop.
        """
        return None
