"""What a step changes before it is known whether it overflowed."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.capture.batch_norm_buffers import batch_norm_buffers
from ms_kfac.ops.graph.persistent_snapshot import PersistentSnapshot
from ms_kfac.optim.base import SecondOrderOptimizer


class Rollback(nn.Cell):
    """Copies of what forward and backward passes write, to drop a step that overflowed.

    These are the moving moments of BatchNorm and the counts of a pass over sampled targets. Statistics need
    no copy: what a dropped step has staged, the next one replaces.

    Args:
        network: what the passes go through.
        optimizer: any optimizer.

    Attributes:
        copies: the copies.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, network: nn.Cell, optimizer: nn.Optimizer) -> None:
        super().__init__(auto_prefix=False)
        written = batch_norm_buffers(network)
        if isinstance(optimizer, SecondOrderOptimizer) and optimizer.draws is not None:
            written += [optimizer.draws, optimizer.statistics_schedule.refreshes]
        self.any_written = len(written) > 0
        self.stored = PersistentSnapshot(written, "before_step")
        self.copies = list(self.stored.copies)
        self.done = Tensor(True, ms.bool_)

    def store(self) -> Tensor:
        """Copy what the coming step may change.

        Returns:
            What the passes have to wait for.
        """
        return ops.depend(self.done, self.stored.store(self.done)) if self.any_written else self.done

    def put_back(self, after: Tensor) -> Tensor:
        """Write what was before the step, when ``after`` is there."""
        return ops.depend(self.done, self.stored.put_back(after)) if self.any_written else self.done
