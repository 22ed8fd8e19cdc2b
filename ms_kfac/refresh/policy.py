"""What decides when statistics are taken or inverses recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter, Tensor, nn

from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.inverse_schedule import InverseSchedule, SharedInverses
from ms_kfac.refresh.statistics_schedule import ScheduleOptions, SharedStatistics, StatisticsSchedule


class RefreshPolicy(nn.Cell):
    """Base of refresh policies: a Cell, so that the decision is made inside the compiled step.

    A policy that decides by the step alone, for all layers at once, defines :meth:`construct`. One that looks
    at each layer overrides :meth:`for_statistics` or :meth:`for_inverses`. A policy is the description; the
    schedule that these return holds the state of one optimizer.

    Inputs:
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor of bool, shape (1,): whether a refresh is due at this step. Step 0 must be due.

    Attributes:
        separate: whether statistics of inputs and of output gradients are refreshed at steps of their own.
        by_layer: whether inverses are refreshed at steps of each layer's own.
        reads_statistics: whether it looks at statistics, which on many devices must have met before.
    """

    separate = False
    by_layer = False
    reads_statistics = False

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)

    def construct(self, step: Tensor) -> Tensor:
        """Whether a refresh is due."""
        raise TypeError(
            f"{type(self).__name__} does not say when a refresh is due: define construct(self, step)"
        )

    def for_statistics(self, blocks: Sequence[Any], options: ScheduleOptions) -> StatisticsSchedule:
        """The schedule of an optimizer's statistics by this policy.

        Args:
            blocks: the curvature blocks.
            options: names, and which layers have stopped.

        Returns:
            The schedule.
        """
        return SharedStatistics(self, blocks, options)

    def for_inverses(
        self,
        blocks: Sequence[Any],
        damping: nn.Cell,
        gates: Sequence[Gate],
        stopped: Parameter | None,
        prefix: str,
    ) -> InverseSchedule:
        """The schedule of an optimizer's inverses by this policy.

        Args:
            blocks: the curvature blocks.
            damping: called with the step when inverses are due.
            gates: the gate of each block.
            stopped: what :meth:`stopped_layers` returned.
            prefix: what the names of Parameters start with.

        Returns:
            The schedule.
        """
        return SharedInverses(self, blocks, damping, prefix)

    def stopped_layers(self, count: int, prefix: str) -> Parameter | None:
        """A flag a layer that says whether it is refreshed no more.

        Args:
            count: number of layers.
            prefix: what the Parameter's name starts with.

        Returns:
            float32 of shape (count,), 1 for a layer that has stopped; None where layers never stop.
        """
        return None
