"""Rollback of the state that a step changes before overflow is detected."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_kfac.capture.batch_norm_buffers import batch_norm_buffers
from ms_kfac.ops.graph.persistent_snapshot import PersistentSnapshot
from ms_kfac.optim.base import SecondOrderOptimizer


class Rollback(nn.Cell):
    """Copies of the state that forward and backward passes write, to drop a step that overflowed.

    The state consists of the moving moments of BatchNorm and the counters of a pass over sampled targets.
    Statistics need no copy: the next step replaces the statistics that a dropped step has staged.

    Args:
        network: the network of the passes.
        optimizer: any optimizer.

    Attributes:
        copies: the copies.

    Platforms: CPU, GPU, Ascend (MindSpore operators).
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
        """Copy the state that the next step may change.

        Returns:
            A dependency token on which the passes must wait.
        """
        return ops.depend(self.done, self.stored.store(self.done)) if self.any_written else self.done

    def put_back(self, after: Tensor) -> Tensor:
        """Restore the state from before the step, once ``after`` is computed."""
        return ops.depend(self.done, self.stored.put_back(after)) if self.any_written else self.done
