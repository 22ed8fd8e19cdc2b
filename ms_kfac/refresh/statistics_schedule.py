"""Schedules of statistics: implement a policy by setting the gates for the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.graph.element import element
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING
from ms_kfac.refresh.gate import Gate


@dataclass(frozen=True)
class ScheduleOptions:
    """Options of a schedule of statistics, in addition to its policy.

    Attributes:
        prefix: prefix of the Parameters' names.
        deferred: whether the gates open only for a pass over sampled targets.
        stopped: float32 (layers,), 1 for a layer that is no longer refreshed; None if layers never stop.
        by_layer: whether every layer needs a separate gate, even if layers never stop.
    """

    prefix: str
    deferred: bool = False
    stopped: Parameter | None = None
    by_layer: bool = False


class _OpenedGates(nn.Cell):
    """Opens or closes deferred gates. A call from Python also discards the values that PyNative taps cached.

    Args:
        gates: deferred gates.
    """

    def __init__(self, gates: Sequence[Gate]) -> None:
        super().__init__(auto_prefix=False)
        self.__dict__["gates"] = tuple(gates)
        self.pending = ms.ParameterTuple([gate.pending for gate in gates])
        self.opened = ms.ParameterTuple([gate.parameter for gate in gates])
        self.assign = ops.Assign()

    def __call__(self, *inputs: Any) -> Any:
        outputs = super().__call__(*inputs)
        for gate in self.gates:
            gate.expire()
        return outputs

    def construct(self, opens: int, after: Any) -> Tensor:
        total = ops.depend(self.pending[0] * 0, after)
        for index in range(len(self.pending)):
            code = ops.depend(self.pending[index] * opens, after)
            total = total + self.assign(self.opened[index], code)
        return total


class StatisticsSchedule(nn.Cell):
    """Base of the schedules of statistics. A call with the number of the next step sets the gates for it.

    Args:
        gates: the gate of each block; several blocks may share one gate.
        prefix: prefix of the Parameters' names.

    Attributes:
        refreshes: number of batches of statistics taken so far, int32. Layers that share a gate count as one.
    """

    def __init__(self, gates: Sequence[Gate], prefix: str) -> None:
        super().__init__(auto_prefix=False)
        self.__dict__["gates"] = tuple(gates)
        distinct = tuple(dict.fromkeys(gates))
        self.pending = ms.ParameterTuple([gate.pending for gate in distinct])
        self.opened = ms.ParameterTuple([gate.parameter for gate in distinct])
        self.deferred = any(gate.parameter is not gate.pending for gate in distinct)
        self.opened_gates: Any = _OpenedGates(distinct) if self.deferred else None
        self.refreshes = Parameter(
            Tensor(0, ms.int32), name=f"{prefix}.statistics_refreshes", requires_grad=False
        )
        self.assign = ops.Assign()
        self.assign_add = ops.AssignAdd()
        self.cast = ops.Cast()

    def count(self, gradients: Any) -> bool:
        """Count the statistics that this step's backward pass took, after the gradients.

        The write also orders a compiled step. The taps write statistics while gradients are computed. Without
        a write that depends on the gradients, a graph could read the statistics earlier.

        Args:
            gradients: dependency of the write.

        Returns:
            True.
        """
        # close() counts deferred statistics, after the pass that takes them.
        taken = self.pending[0] * 0 if self.deferred else self.number_pending()
        self.assign_add(self.refreshes, ops.depend(taken, gradients))
        return True

    def number_pending(self) -> Tensor:
        """Number of gates that are open in this step: scalar int32."""
        number = self.cast(self.pending[0] > 0, ms.int32)
        for index in range(1, len(self.pending)):
            number = number + self.cast(self.pending[index] > 0, ms.int32)
        return number

    def taken(self) -> Tensor:
        """Which statistics this step has taken; one element per statistic if their steps differ."""
        return self.number_pending()

    def is_pending(self) -> Tensor:
        """Whether this step takes statistics of any layer: scalar bool."""
        return self.number_pending() > 0

    def open(self, after: Any) -> Tensor:
        """Open the deferred gates that are pending, for a pass over sampled targets.

        Args:
            after: dependency of the write.

        Returns:
            Tensor on which the pass must depend, by ``ops.depend``. A compiled graph keeps no other order
            between a write and a backward pass.
        """
        return self.opened_gates(1, after)

    def close(self, after: Any) -> Tensor:
        """Close the deferred gates again. Pending gates stay pending until the optimizer's step.

        Args:
            after: dependency of the write: the gradients of the pass.

        Returns:
            Tensor on which later passes must depend, by ``ops.depend``.
        """
        self.assign_add(self.refreshes, ops.depend(self.number_pending(), after))
        return self.opened_gates(0, after)

    def expire(self) -> None:
        """Discard the gate values that PyNative taps cached."""
        for gate in self.gates:
            gate.expire()


class UniformStatisticsSchedule(StatisticsSchedule):
    """Statistics of all layers at the same steps.

    Args:
        policy: decides whether a refresh is due at a step.
        blocks: the curvature blocks.
        options: options of the schedule.
    """

    def __init__(self, policy: nn.Cell, blocks: Sequence[Any], options: ScheduleOptions) -> None:
        prefix = options.prefix
        if options.stopped is None and not options.by_layer:
            gates = [Gate(f"{prefix}.gate", deferred=options.deferred)] * max(len(blocks), 1)
        else:
            gates = [Gate(f"{prefix}.{block.layer_name}.gate", deferred=options.deferred) for block in blocks]
        super().__init__(gates, prefix)
        self.policy = policy
        self.stops = options.stopped is not None
        self.stopped: Any = options.stopped
        self.everything = EVERYTHING

    def construct(self, step: Tensor) -> bool:
        code = self.cast(self.policy(step), ms.int32).reshape(()) * self.everything
        for index in range(len(self.pending)):
            if self.stops:
                running = self.cast(1.0 - element(self.stopped, index), ms.int32)
                self.assign(self.pending[index], code * running)
            else:
                self.assign(self.pending[index], code)
        return True
