"""Statistics of Parameters outside all layers, staged by the optimizer step from gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.graph.rounds import in_rounds


class _FewLone(nn.Cell):
    def __init__(self, blocks: Sequence[Any], gates: Sequence[Parameter], positions: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        self.operators = nn.CellList([block.operator for block in blocks], auto_prefix=False)
        self.batches = ParameterTuple([block.staged[0] for block in blocks])
        self.records = ParameterTuple([block.record for block in blocks])
        self.gates = ParameterTuple(list(gates))
        self.positions = tuple(positions)

    def construct(self, gradients: tuple[Tensor, ...], samples: Tensor) -> bool:
        for index in range(len(self.operators)):
            gradient = ops.cast(gradients[self.positions[index]], ms.float32)
            batch, record = self.batches[index], self.records[index]
            self.operators[index](samples, gradient, self.gates[index], batch, record)
        return True


class StageLone(nn.Cell):
    """Stage a batch of statistics for each Parameter outside all layers.

    Args:
        blocks: the curvature blocks.
        gates: the gate of each block, scalar int32.
        positions: the index of each block's Parameter among the gradients.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the mean loss, without a loss scale, one per parameter.
        - **samples** (Tensor) - number of samples N of the step, summed over all ranks, scalar float32. With
          0 the batches are staged with weight zero.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, blocks: Sequence[Any], gates: Sequence[Parameter], positions: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        members = list(zip(blocks, gates, positions))
        self.few = nn.CellList([_FewLone(*zip(*own)) for own in in_rounds(members)], auto_prefix=False)

    def construct(self, gradients: tuple[Tensor, ...], samples: Tensor) -> bool:
        for few in self.few:
            few(gradients, samples)
        return True
