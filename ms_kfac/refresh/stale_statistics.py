r"""Adaptive refresh interval per statistic, based on its changes (SP-NGD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, ops

from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, GRADIENTS, INPUTS
from ms_kfac.refresh.gate import Gate
from ms_kfac.refresh.policy import RefreshPolicy
from ms_kfac.refresh.statistics_schedule import ScheduleOptions, StatisticsSchedule
from ms_kfac.values import check_number


class StaleStatistics(RefreshPolicy):
    r"""An interval :math:`\Delta` per statistic, which grows while the statistic stays similar.

    Every refresh of a statistic X compares it with its two earlier values, :math:`X_{-1}` and then
    :math:`X_{-2}`. "Similar to Y" means :math:`\|X - Y\|_F < \alpha \|Y\|_F`:

    .. math::
        \Delta \leftarrow \begin{cases}
            \max(1, \lfloor \Delta / 2 \rfloor) & X \text{ not similar to } X_{-1} \\
            \Delta & X \text{ similar to } X_{-1}, \text{ not to } X_{-2} \\
            \Delta + \Delta_{-1} & \text{otherwise}
        \end{cases}

    :math:`\Delta_{-1}` is the previous interval, so that intervals grow like Fibonacci numbers. This is the
    adaptive frequency of stale statistics of Osawa et al. 2020, "Scalable and Practical Natural Gradient for
    Large-Scale Deep Learning".

    X is the statistic that the preconditioner uses. With a moving average (``factor_decay`` above 0), a
    refresh replaces at most a fraction :math:`1 - \epsilon` of X. So X is classified as similar sooner than
    the statistic of a single batch.

    Statistics of inputs and of output gradients have separate intervals if the block separates them
    (Kronecker factors). A block with one joint statistic has one interval. The two earlier values need twice
    the memory of the statistics.

    Args:
        similarity: :math:`\alpha`, positive. Default: 0.1.

    Raises:
        TypeError: if ``similarity`` is not a number.
        ValueError: if it is not positive and at most 1e18, or if the policy is given as
            ``inverse_interval``, when the optimizer is created.
    """

    separate = True
    reads_statistics = True

    def __init__(self, similarity: float = 0.1) -> None:
        super().__init__()
        # Statistics are compared by squared norms.
        self.similarity = check_number(
            "StaleStatistics: similarity", similarity, low=0.0, high=1e18, low_open=True
        )

    def for_statistics(self, blocks: Sequence[Any], options: ScheduleOptions) -> StatisticsSchedule:
        return StaleSchedule(self.similarity, blocks, options)

    def for_inverses(self, *arguments: Any, **named: Any) -> Any:
        raise ValueError(
            "inverse_interval: must be a policy for inverses, such as OnNewStatistics, got StaleStatistics; "
            "pass it as factor_interval"
        )

    def __repr__(self) -> str:
        return f"when they differ by more than {self.similarity:g}"


_compare = ops.MultitypeFuncGraph("compare")


def _excess(similarity_squared: float, X: Tensor, Y: Tensor) -> Tensor:
    """Squared distance of X from Y minus the squared threshold: negative if they are similar."""
    return ops.square(X - Y).sum() - similarity_squared * ops.square(Y).sum()


@_compare.register("Number", "Tensor", "Tensor", "Tensor", "Tensor")
def _compare_and_keep(
    similarity_squared: float, taken: Tensor, X: Tensor, last: Tensor, second_last: Tensor
) -> Tensor:
    excess = ops.stack((_excess(similarity_squared, X, last), _excess(similarity_squared, X, second_last)))
    ops.assign(second_last, ops.where(taken > 0, last, second_last))
    ops.assign(last, ops.where(taken > 0, X, last))
    return excess


class StaleSchedule(StatisticsSchedule):
    """The intervals, earlier values and gates of one optimizer's statistics.

    Vectors with one element per statistic hold all intervals. So the compiled step has a single branch for
    any number of layers: the comparison, on steps that took a statistic.

    Args:
        similarity: relative distance below which two statistics are similar.
        blocks: the curvature blocks.
        options: options of the schedule.
    """

    def __init__(self, similarity: float, blocks: Sequence[Any], options: ScheduleOptions) -> None:
        prefix = options.prefix
        gates = [Gate(f"{prefix}.{block.layer_name}.gate", deferred=options.deferred) for block in blocks]
        super().__init__(gates or [Gate(f"{prefix}.gate", deferred=options.deferred)], prefix)
        self.blocks = ms.nn.CellList(blocks, auto_prefix=False)
        self.similarity_squared = similarity * similarity
        self.owners = tuple(
            (index, group)
            for index, block in enumerate(blocks)
            for group in range(len(block.groups_of_statistics()))
        )
        codes = np.zeros((len(blocks), max(len(self.owners), 1)), np.int32)
        for position, (index, group) in enumerate(self.owners):
            joint = len(blocks[index].groups_of_statistics()) == 1
            codes[index, position] = EVERYTHING if joint else (INPUTS, GRADIENTS)[group]
        self.codes = Tensor(codes)
        self.owner_of = Tensor(np.array([index for index, _ in self.owners] or [0], np.int32))
        count = max(len(self.owners), 1)
        self.interval = self._vector(f"{prefix}.interval", np.ones(count, np.int32))
        self.interval_before = self._vector(f"{prefix}.interval_before", np.ones(count, np.int32))
        self.next_step = self._vector(f"{prefix}.next_step", np.zeros(count, np.int32))
        self.due = self._vector(f"{prefix}.due", np.ones(count, np.float32))
        self.stops = options.stopped is not None
        self.stopped: Any = options.stopped
        parts = [
            position
            for position, (index, group) in enumerate(self.owners)
            for _ in self.blocks[index].estimate_shapes(group)
        ]
        self.owner_of_part = Tensor(np.array(parts or [0], np.int32))
        self.last = self._earlier_values("last")
        self.second_last = self._earlier_values("second_last")
        self.stack = ops.Stack()
        self.reduce_sum = ops.ReduceSum()
        self.select = ops.Select()
        self.gather = ops.Gather()
        self.unstack = ops.Unstack()
        self.segment_sum = ops.UnsortedSegmentSum()
        self.hyper_map = ops.HyperMap()

    @staticmethod
    def _vector(name: str, value: Any) -> Parameter:
        return Parameter(Tensor(value), name=name, requires_grad=False)

    def _earlier_values(self, name: str) -> Any:
        values = []
        for index, group in self.owners:
            block = self.blocks[index]
            for part, shape in enumerate(block.estimate_shapes(group)):
                zeros = np.zeros(shape, np.float32)
                values.append(self._vector(f"{block.name_prefix}.{name}_{group}_{part}", zeros))
        return ParameterTuple(values)

    def construct(self, step: Tensor) -> bool:
        if self.reduce_sum(self.due) > 0:
            self.observe(step - 1)
        due = self.cast(self.next_step <= step, ms.float32)
        if self.stops:
            due = due * (1.0 - self.gather(self.stopped, self.owner_of, 0))
        self.assign(self.due, due)
        codes = self.reduce_sum(self.codes * self.cast(due, ms.int32), 1)
        for index in range(len(self.pending)):
            self.assign(self.pending[index], codes[index])
        return True

    def taken(self) -> Tensor:
        return self.due + 0.0

    def observe(self, step: Tensor) -> bool:
        """Compare refreshed statistics with their earlier values, and update the intervals."""
        observed: tuple[Tensor, ...] = ()
        for index, group in self.owners:
            observed = observed + self.blocks[index].current_estimate(group)
        taken_parts = self.unstack(self.gather(self.due, self.owner_of_part, 0))
        # A map instead of a loop: MindSpore nests the graphs of a loop's iterations, and the statistics of
        # ResNet-50 exceed its nesting limit.
        excess = self.hyper_map(
            ops.partial(_compare, self.similarity_squared), taken_parts, observed, self.last, self.second_last
        )
        unlike = self.segment_sum(self.stack(excess), self.owner_of_part, max(len(self.owners), 1))
        interval, before = self.interval, self.interval_before
        halved = ops.maximum(interval // 2, 1)
        # Not ">= 0": statistics with NaN are like no others.
        similar = unlike < 0
        grown = self.select(similar[:, 1], interval + before, interval + 0)
        chosen = self.select(similar[:, 0], grown, halved)
        taken = self.due > 0
        next_step = self.select(taken, chosen + step, self.next_step + 0)
        self.assign(self.interval_before, self.select(taken, interval + 0, before + 0))
        self.assign(self.interval, self.select(taken, chosen, interval + 0))
        self.assign(self.next_step, next_step)
        return True
