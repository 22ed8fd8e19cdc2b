"""Backward passes that take no statistics, for the duration of a ``with`` block."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from mindspore import Parameter, Tensor, ops


class Pause:
    """Context manager that closes the gates of an optimizer's taps, and restores them at exit.

    Batches that were staged before the block stay as they are, and so does the count of samples. The gates
    are written in place, so functions that were compiled before the block see the change.

    Blocks may be nested, and an exception passes through. An optimizer's step inside its own block is
    refused, because the step would open the gates again.

    Args:
        optimizer: the optimizer.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.kept: tuple[Tensor, ...] = ()
        self.step = 0

    def __repr__(self) -> str:
        # MindSpore shows this text if the block is inside a compiled function.
        return "paused(), which must be around a compiled function, not inside it"

    def __enter__(self) -> None:
        gates, counters = self._parameters()
        self.step = int(self.optimizer.global_step.asnumpy().item())
        # Sums are copies; the Parameters themselves are written.
        self.kept = tuple(parameter + 0 for parameter in (*gates, *counters))
        for gate in gates:
            ops.assign(gate, Tensor(0, gate.dtype))
        self.optimizer.statistics_schedule.expire()
        self.optimizer.pauses += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.optimizer.pauses -= 1
        stepped = int(self.optimizer.global_step.asnumpy().item()) != self.step
        if not stepped:
            gates, counters = self._parameters()
            for parameter, value in zip((*gates, *counters), self.kept):
                ops.assign(parameter, value)
        self.optimizer.statistics_schedule.expire()
        if stepped and kind is None:
            raise RuntimeError(refusal(self.optimizer))

    def _parameters(self) -> tuple[tuple[Parameter, ...], tuple[Parameter, ...]]:
        return tuple(self.optimizer.statistics_schedule.opened), tuple(self.optimizer.counters())


def refusal(optimizer: Any) -> str:
    """Message for an optimizer's step inside its own ``paused()`` block.

    Args:
        optimizer: the optimizer.

    Returns:
        The message.
    """
    name = type(optimizer).__name__
    return f"{name}: the optimizer's step must be outside its own paused() block, got a step inside it"
