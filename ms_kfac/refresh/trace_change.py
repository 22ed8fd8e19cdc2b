r"""Refresh of a layer's inverse when the trace of its Fisher block has changed enough (THOR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.inverse_schedule import InverseSchedule
from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.refresh.statistics_schedule import ScheduleOptions, StatisticsSchedule
from ms_kfac.refresh.warm_up_interval import WarmUpInterval
from ms_kfac.values import check_count, check_number


class TraceChange(RefreshPolicy):
    r"""Compares each layer's trace at an interval, and refreshes, keeps or stops the layer by the change.

    .. math::
        r = \frac{|\mathrm{tr}(F + \lambda I) - \mathrm{tr}(F_{last} + \lambda I)|}
                 {\mathrm{tr}(F_{last} + \lambda I)}

    :math:`F_{last}` is the block at the last refresh. Both traces use the current :math:`\lambda`, so a
    change of only the damping does not count as a change of the trace. The rule is (Chen et al. 2021, "THOR,
    Trace-based Hardware-driven Layer-Oriented Natural Gradient Descent Computation"):

    * :math:`r > \omega_1`: refresh the inverse;
    * :math:`\omega_2 \le r \le \omega_1`: keep the inverse;
    * :math:`0 < r < \omega_2`: stop the layer, whose inverse and statistics are no longer refreshed.

    An unchanged trace, r = 0, means that no new statistics were taken, so it does not stop the layer.

    :math:`(\omega_1, \omega_2)` = (0.01, 0) is the paper's THOR, and (0.01, 0.001) its THOR_stop. (0, 0)
    refreshes every layer whose trace has changed.

    Args:
        omega1: :math:`\omega_1`, not negative. Default: 0.01.
        omega2: :math:`\omega_2` in [0, :math:`\omega_1`]. Default: 0.0.
        interval: number of steps between two comparisons after a warm-up (:class:`ms_kfac.WarmUpInterval`),
            or a policy that depends only on the step. Default: 1.

    Raises:
        ValueError: if a number is outside its range, or if the policy is given as ``factor_interval``, when
            the optimizer is created.
        TypeError: if ``interval`` is neither an int nor a policy.
    """

    by_layer = True
    reads_statistics = True

    def __init__(
        self, omega1: float = 0.01, omega2: float = 0.0, *, interval: int | RefreshPolicy = 1
    ) -> None:
        super().__init__()
        self.omega1 = check_number("TraceChange: omega1", omega1, low=0.0)
        self.omega2 = check_number("TraceChange: omega2", omega2, low=0.0, high=self.omega1)
        if isinstance(interval, RefreshPolicy):
            if type(interval).construct is RefreshPolicy.construct:
                raise ValueError(
                    "TraceChange: interval must be an int or a policy that depends only on the step, got "
                    f"{type(interval).__name__}"
                )
            self.look = interval
        else:
            self.look = WarmUpInterval(check_count("TraceChange: interval", interval, " or a RefreshPolicy"))

    def construct(self, step: Tensor) -> Tensor:
        return self.look(step)

    def for_statistics(self, blocks: Sequence[Any], options: ScheduleOptions) -> StatisticsSchedule:
        raise ValueError(
            "factor_interval: must be a policy for statistics, got TraceChange; pass it as inverse_interval"
        )

    def for_inverses(
        self,
        blocks: Sequence[Any],
        damping: nn.Cell,
        gates: Sequence[Gate],
        stopped: Parameter | None,
        prefix: str,
    ) -> InverseSchedule:
        return InversesOfChangedTraces(self, blocks, damping, stopped, prefix)

    def stopped_layers(self, count: int, prefix: str) -> Parameter | None:
        if self.omega2 == 0.0 or count == 0:
            return None
        return Parameter(Tensor(np.zeros(count, np.float32)), name=f"{prefix}.stopped", requires_grad=False)

    def __repr__(self) -> str:
        limits = f"of layers whose trace changed by more than {self.omega1:g}"
        if self.omega2 > 0:
            limits += f", stopped below {self.omega2:g}"
        return f"{self.look!r} {limits}"


class InversesOfChangedTraces(InverseSchedule):
    """Stores the trace of each layer at its last refresh, and compares the current trace with it.

    Args:
        policy: the thresholds, and the steps of the comparisons.
        blocks: the curvature blocks.
        damping: Cell that maps the step to the damping; called at every comparison.
        stopped: flags of the layers that are no longer refreshed; None if layers never stop.
        prefix: prefix of the Parameters' names.
    """

    def __init__(
        self,
        policy: TraceChange,
        blocks: Sequence[Any],
        damping: nn.Cell,
        stopped: Parameter | None,
        prefix: str,
    ) -> None:
        super().__init__(blocks, damping, prefix)
        self.policy = policy
        self.omega1, self.omega2 = policy.omega1, policy.omega2
        self.by_layer = True
        self.stops = stopped is not None
        self.stopped: Any = stopped
        sizes = np.array([block.size for block in blocks] or [1], np.float32)
        self.sizes = Tensor(sizes)
        # Undamped. Negative before the first refresh, because no trace is negative.
        self.last_trace = Parameter(
            Tensor(-np.ones_like(sizes)), name=f"{prefix}.last_trace", requires_grad=False
        )
        self.stack = ops.Stack()
        self.abs = ops.Abs()

    def construct(self, step: Tensor, allowed: Any = 1) -> bool:
        if self.or_first(self.cast(self.policy(step), ms.int32) * allowed) > 0:
            if self.distributed:
                self.curvature.average_due()
            damping = self.damping(step)
            traces: tuple[Tensor, ...] = ()
            for block in self.blocks:
                traces = (*traces, block.trace())
            trace = self.stack(traces)
            change = self.abs(trace - self.last_trace)
            damped = self.last_trace + damping * self.sizes
            never = self.cast(self.last_trace < 0, ms.float32)
            # A layer without statistics has nothing to refresh yet. A trace of NaN is due: the refresh tells
            # the user about it.
            first = never * (1.0 - self.cast(trace <= 0, ms.float32))
            kept = self.cast(change <= self.omega1 * damped, ms.float32)
            due = ops.maximum((1.0 - kept) * (1.0 - never), first)
            if self.stops:
                small = self.cast(change < self.omega2 * damped, ms.float32)
                moved = self.cast(change > 0, ms.float32)
                stopped = ops.maximum(self.stopped, small * moved * (1.0 - never))
                self.assign(self.stopped, stopped)
                due = due * (1.0 - stopped)
            refreshed = ops.logical_and(due > 0, ops.isfinite(trace))
            self.assign(self.last_trace, ops.where(refreshed, trace, self.last_trace))
            flags = self.cast(due, ms.int32)
            number = self.reduce_sum(flags)
            self.refresh_each(flags, number, damping)
            self.assign_add(self.refreshes, number)
        return True
