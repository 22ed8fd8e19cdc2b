"""What a step changes before it is known whether it overflowed."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.capture.moving_statistics import moving_statistics
from ms_kfac.ops.stored_values import StoredValues
from ms_kfac.optim.base import SecondOrderOptimizer


class StateBeforeStep(nn.Cell):
    """Copies of what forward and backward passes write, to drop a step that overflowed.

    These are the moving moments of BatchNorm and the counts of samples and draws, copied at every step, and
    the layers' statistics, copied at steps that take any. The past of statistics fades at the end of the step
    before, so that the copies have faded, as the next step wants them.

    Args:
        network: what the passes go through.
        optimizer: any optimizer.

    Attributes:
        copies: the copies.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, network: nn.Cell, optimizer: nn.Optimizer) -> None:
        super().__init__(auto_prefix=False)
        always = moving_statistics(network)
        statistics: list[Parameter] = []
        self.schedule: Any = None
        if isinstance(optimizer, SecondOrderOptimizer) and len(optimizer.blocks) > 0:
            self.schedule = optimizer.statistics_schedule
            always += [*optimizer.counters(), self.schedule.refreshes]
            if optimizer.draws is not None:
                always.append(optimizer.draws)
            statistics = [parameter for block in optimizer.blocks for parameter in block.written_by_tap()]
        self.takes_statistics = self.schedule is not None
        self.any_always = len(always) > 0
        self.always = StoredValues(always, "before_step")
        self.statistics = StoredValues(statistics, "before_step")
        self.copies = [*self.always.copies, *self.statistics.copies]
        self.done = Tensor(True, ms.bool_)

    def store(self) -> Tensor:
        """Copy what the coming step may change.

        Returns:
            What the passes have to wait for.
        """
        done = self.done
        if self.any_always:
            done = ops.depend(done, self.always.store(self.done))
        if self.takes_statistics:  # noqa: SIM102
            if self.schedule.is_pending():
                done = ops.depend(done, self.statistics.store(self.done))
        return done

    def put_back(self, after: Tensor) -> Tensor:
        """Write what was before the step, when ``after`` is there."""
        done = self.done
        if self.any_always:
            done = ops.depend(done, self.always.put_back(after))
        if self.takes_statistics:  # noqa: SIM102
            if self.schedule.is_pending():
                done = ops.depend(done, self.statistics.put_back(after))
        return done
