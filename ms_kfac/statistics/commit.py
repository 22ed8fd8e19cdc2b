r"""Commit: the part of the optimizer step that adds staged batches to the averages.

A moving average (Martens & Grosse 2015, section 5)

.. math::
    F_k = \epsilon_k F_{k-1} + (1 - \epsilon_k) \hat F_k, \qquad \epsilon_k = \min(1 - 1/k, \epsilon)

is stored as a sum S with a weight n, so that F = S / n. With W the weight of the past in units of one commit,

.. math::
    d = \min\left(1, \frac{\epsilon}{1 - \epsilon} / W\right), \qquad
    S \leftarrow d S + \hat S, \qquad n \leftarrow d n + \hat n, \qquad W \leftarrow d W + 1

gives the same average for batches of equal size. Batches of unequal size are weighted by their number of
samples. The first batch has full weight and early batches have equal weights, so that there is no bias
towards an initial value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.statistics.layer_statistics import PASSES, PERIOD, PRODUCT, SCALE, STAGED_WEIGHTS
from ms_kfac.statistics.judge import fallback_judge, register_judge
from ms_kfac.statistics.statistic import Statistic

# Smaller than any trace that float32 statistics resolve. Makes 0 / 0 zero for a batch without signal.
SMALLEST_TRACE = 1e-30


@dataclass(frozen=True)
class RootAverage:
    r"""Options of averages over roots of the batches' traces: TKFAC with the moving average of its paper.

    A batch enters as :math:`\sqrt{\tilde\delta_b} \Phi_b`, :math:`\sqrt{\tilde\delta_b} \Psi_b` and
    :math:`(\delta_b, s(\tilde\delta_b))` with :math:`\tilde\delta_b = \max(\nu, \delta_b)` (Gao et al. 2021,
    equations 17 and 18).

    Attributes:
        floor: :math:`\nu`; 0 leaves :math:`\delta_b` unchanged.
        homogeneous: whether s is the square root; otherwise s is the identity.
    """

    floor: float
    homogeneous: bool


class LayerCommit(nn.Cell):
    r"""Fallback commit of one layer.

    Args:
        block: the layer's curvature block.
        limit: :math:`\epsilon / (1 - \epsilon)`.
        first: index of the block's first weight of the past in the vector of all layers.
    """

    def __init__(self, block: Any, limit: float, first: int) -> None:
        super().__init__(auto_prefix=False)
        statistics: Sequence[Statistic] = block.statistics
        count = int(block.weights.size)
        self.count, self.first, self.limit = count, first, limit
        self.record, self.weights = block.record, block.weights
        self.batches = ms.ParameterTuple([statistic.batch for statistic in statistics])
        self.averages = ms.ParameterTuple([statistic.estimated() for statistic in statistics])
        self.weight_of = tuple(statistic.weight for statistic in statistics)
        self.powers = tuple(statistic.power for statistic in statistics)
        self.averaged = tuple(statistic.average is not None for statistic in statistics)
        carried = np.ones(count, bool)
        weight_powers = np.zeros(count, np.float32)
        for statistic in statistics:
            if statistic.average is not None:
                carried[statistic.weight] = False
            else:
                weight_powers[statistic.weight] = statistic.power
        self.carried, self.weight_powers = Tensor(carried), Tensor(weight_powers)
        self.of_samples = Tensor(np.array(_weights_of_samples(block), np.float32))
        self.roots: RootAverage | None = block.roots
        self.assign = ops.Assign()
        self.slice = ops.Slice()
        self.reshape = ops.Reshape()
        self.stack = ops.Stack()
        self.concat = ops.Concat()
        self.cast = ops.Cast()
        self.isfinite = ops.IsFinite()
        self.reduce_all = ops.ReduceAll()
        self.logical_and = ops.LogicalAnd()
        self.sqrt = ops.Sqrt()
        self.maximum = ops.Maximum()
        self.passes_only, self.period_only = (
            Tensor(np.eye(1, STAGED_WEIGHTS + count, index, np.float32)[0]) for index in (PASSES, PERIOD)
        )
        # The number of kernels that staged the batch is unknown here.
        self.kernels = Tensor([0.0], ms.float32)

    def report(self, expected: Tensor, measured: Tensor) -> Tensor:
        """Numbers of the layer for the judge, shape (10,)."""
        taken = self.staged_weights()
        # Products of passes that were replaced may be NaN or Inf, so they are not checked.
        numbers = self.stack((element(self.record, PRODUCT), element(self.record, SCALE)))
        finite = self.reduce_all(self.isfinite(numbers))
        for index in range(len(self.weight_of)):
            # A statistic that the pass has not taken may be NaN or Inf.
            array = ops.where(taken[self.weight_of[index]] > 0, self.batches[index], 0.0)
            finite = self.logical_and(finite, self.reduce_all(self.isfinite(array)))
        passes = self.slice(self.record, (0,), (PERIOD + 1,))
        products = self.slice(self.record, (PRODUCT,), (SCALE - PRODUCT + 1,)) * expected
        flag = self.reshape(self.cast(finite, ms.float32), (1,))
        return self.concat((passes, products, self.reshape(measured, (-1,)), flag, self.kernels))

    def apply(self, told: Tensor, answer: Tensor, unscale: Tensor, past: Parameter) -> Tensor:
        """Commit or refuse the batch, or empty the averages; return 1 if the layer has statistics, else 0."""
        # Several calls of a layer in one pass are further locations of the same samples.
        taken = self.staged_weights() / (1.0 + self.of_samples * (answer[2:3] - 1.0))
        ran = self.slice(self.record, (0,), (1,)) > 0.5
        commits = self.logical_and(ran, self.logical_and(answer[0:1] > 0.5, told[8:9] > 0.5))
        takes = self.logical_and(commits, taken > 0)
        weights = self.weights + 0.0
        before = self.slice(past, (self.first,), (self.count,))
        decay = ops.minimum(self.limit / self.maximum(before, SMALLEST_TRACE), 1.0)
        decay = ops.where(before > 0, decay, 0.0)
        # W advances even without statistics: it must be equal on all ranks, and not all ranks hold the sums.
        keep = ops.where(weights > 0, decay, 0.0)
        for index in range(len(self.weight_of)):
            weight = self.weight_of[index]
            if self.averaged[index]:
                value = self.staged_value(index, taken[weight], unscale)
                kept = ops.where(keep[weight] > 0, self.averages[index] * keep[weight], 0.0)
                self.assign(
                    self.averages[index], ops.where(takes[weight], kept + value, self.averages[index])
                )
        # Statistics without averages are lost if the batch is refused.
        alone = taken / unscale**self.weight_powers
        refused = ops.where(self.logical_and(ran, self.carried), 0.0, weights)
        committed = ops.where(self.carried, alone, weights * keep + taken)
        emptied = self.logical_and(ran, answer[0:1] < -0.5)
        weights = ops.where(takes, committed, ops.where(commits, weights, refused))
        weights = ops.where(emptied, 0.0, weights)
        new_past = ops.where(emptied, 0.0, ops.where(takes, before * decay + 1.0, before))
        self.assign(self.weights, weights)
        self.assign_past(past, new_past)
        next_record = self.period_only * answer[1:2] - self.passes_only * answer[3:4]
        # Without a pass that counts, there is nothing to empty.
        self.assign(self.record, ops.where(ran, next_record, self.record))
        return self.cast(weights.sum() > 0, ms.float32)

    def assign_past(self, past: Parameter, new: Tensor) -> bool:
        """Write this layer's part of the vector of all layers."""
        size = past.shape[0]
        parts: tuple[Tensor, ...] = (new,)
        if self.first > 0:
            parts = (self.slice(past, (0,), (self.first,)), *parts)
        behind = size - self.first - self.count
        if behind > 0:
            parts = (*parts, self.slice(past, (self.first + self.count,), (behind,)))
        self.assign(past, self.concat(parts) if len(parts) > 1 else new)
        return True

    def staged_weights(self) -> Tensor:
        """The weights of the staged batch."""
        return self.slice(self.record, (STAGED_WEIGHTS,), (self.count,))

    def staged_value(self, index: int, weight: Tensor, unscale: Tensor) -> Tensor:
        """The amount that a batch adds to an average."""
        if self.roots is None:
            power = self.powers[index]
            return self.batches[index] * unscale**power if power > 0 else self.batches[index] + 0.0
        trace = self.batches[2] * unscale**2
        delta = trace / self.maximum(weight, SMALLEST_TRACE)
        floored = self.maximum(delta, self.roots.floor)
        root = self.sqrt(floored)
        if index == 2:
            shift = root if self.roots.homogeneous else floored
            return self.stack((delta, shift)) * weight
        return self.batches[index] * (unscale**2 * root / self.maximum(delta, SMALLEST_TRACE))


class CommitStatistics(nn.Cell):
    r"""Commit the staged batches of all layers, on steps that took statistics.

    A batch is not committed if it contains NaN or Inf, or if the judge refuses it.

    Args:
        blocks: the curvature blocks.
        decay: :math:`\epsilon` in [0, 1) of the moving averages.
        judge: function that decides about every batch. It maps float32 (layers, 10) to (layers, 4), as
            ``kernels/interface/judge.h`` describes.
        name: prefix of the Parameters' names.

    Attributes:
        past: weight of the past for every weight of every layer, in units of one commit.
        outcome: number of refused batches, then whether each layer has statistics: float32 (1 + layers,).
            A layer that loses its statistics with a refused batch (SKFAC) keeps its 1, because its inverses
            come from statistics.
        calls: number of calls of each layer per backward pass, as found so far: float32 (layers,).

    Inputs:
        - **due** (Tensor) - scalar int32; with 0 nothing happens.
        - **scales** (Tensor) - float32, shape (2,): the inverse of the loss scale of the staged gradients,
          and the factor between the delivered gradient and the sum of the gradients of all passes.
        - **measured** (Tensor) - float32, shape (layers, 3): the output of
          :class:`ms_kfac.statistics.measure.MeasureGradients`.

    Outputs:
        bool, True.

    Platforms: CPU, GPU (native or fallback), Ascend (fallback, in a branch).
    """

    def __init__(self, blocks: Sequence[Any], decay: float, judge: Any, *, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.exists = len(blocks) > 0
        counts = [int(block.weights.size) for block in blocks]
        limit = decay / (1.0 - decay)
        self.past = _zeros(f"{name}.past", max(sum(counts), 1))
        self.outcome = _zeros(f"{name}.committed", 1 + len(blocks))
        ones = Tensor(np.ones(max(len(blocks), 1), np.float32))
        self.calls = Parameter(ones, name=f"{name}.calls", requires_grad=False)
        self.native = is_native("commit_statistics")
        self.cast = ops.Cast()
        if not self.exists:
            return
        if self.native:
            self.__dict__["handle"] = register_judge(judge)
            statistics = [statistic for block in blocks for statistic in block.statistics]
            arrays: list[Parameter] = []
            for block in blocks:
                arrays += [block.record, block.weights]
                for statistic in block.statistics:
                    arrays.append(statistic.batch)
                    if statistic.average is not None:
                        arrays.append(statistic.average)
            self.arrays = ms.ParameterTuple(arrays)
            roots = [block.roots for block in blocks]
            self.kernel = native_operator(
                "commit_statistics",
                layers="\n".join(block.layer_name for block in blocks),
                arrays=[len(block.statistics) for block in blocks],
                weights=counts,
                weight_of=[statistic.weight for statistic in statistics],
                powers=[statistic.power for statistic in statistics],
                diagonal=[int(statistic.symmetric) for statistic in statistics],
                averaged=[int(statistic.average is not None) for statistic in statistics],
                samples=[int(flag) for block in blocks for flag in _weights_of_samples(block)],
                roots=[int(root is not None) for root in roots],
                homogeneous=[int(root is not None and root.homogeneous) for root in roots],
                floors=[0.0 if root is None else float(root.floor) for root in roots],
                limit=float(limit),
                judge=self.handle.number,
            )
        else:
            begins = np.cumsum([0, *counts])
            self.layers = nn.CellList(
                [LayerCommit(block, limit, int(begin)) for block, begin in zip(blocks, begins)],
                auto_prefix=False,
            )
            self.judge = fallback_judge(judge)
            self.stack = ops.Stack()
            self.assign = ops.Assign()
            self.slice = ops.Slice()
            self.concat = ops.Concat()

    def construct(self, due: Tensor, scales: Tensor, measured: Tensor) -> bool:
        if self.exists:
            if self.native:
                self.kernel(due, scales, measured, self.past, self.outcome, self.calls, *self.arrays)
            elif due > 0:
                self.commit(scales, measured)
        return True

    def commit(self, scales: Tensor, measured: Tensor) -> bool:
        """Commit with the fallback."""
        reports: tuple[Tensor, ...] = ()
        for index in range(len(self.layers)):
            reports = (*reports, self.layers[index].report(scales[1], measured[index]))
        told = self.stack(reports)
        answers = self.judge(told)
        ran = told[:, 0] > 0.5
        refused = ops.logical_and(ran, ops.logical_or(told[:, 8] < 0.5, answers[:, 0] == 0))
        count = self.slice(self.outcome, (0,), (1,)) + self.cast(refused.any(), ms.float32)
        before = self.slice(self.outcome, (1,), (len(self.layers),))
        before = ops.where(ops.logical_and(ran, answers[:, 0] < -0.5), 0.0, before)
        present: tuple[Tensor, ...] = ()
        for index in range(len(self.layers)):
            present = (*present, self.layers[index].apply(told[index], answers[index], scales[0], self.past))
        self.assign(self.outcome, self.concat((count, ops.maximum(self.stack(present), before))))
        self.assign(self.calls, ops.where(ran, answers[:, 2], self.calls))
        return True


def _weights_of_samples(block: Any) -> list[bool]:
    counting = {statistic.weight for statistic in block.statistics if statistic.samples}
    return [index in counting for index in range(int(block.weights.size))]


def _zeros(name: str, count: int) -> Parameter:
    return Parameter(Tensor(np.zeros(count, np.float32)), name=name, requires_grad=False)
