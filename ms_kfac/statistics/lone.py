"""Statistics of Parameters outside all layers: the step stages them, from gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.rounds import in_rounds
from ms_kfac.refresh.gate import Gate


class _FewLone(nn.Cell):
    def __init__(self, blocks: Sequence[Any], gates: Sequence[Gate], positions: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        self.operators = nn.CellList([block.operator for block in blocks], auto_prefix=False)
        self.batches = ParameterTuple([block.staged[0] for block in blocks])
        self.records = ParameterTuple([block.record for block in blocks])
        self.gates = ParameterTuple([gate.parameter for gate in gates])
        self.positions = tuple(positions)

    def construct(self, gradients: tuple[Tensor, ...], samples: Tensor) -> bool:
        for index in range(len(self.operators)):
            gradient = ops.cast(gradients[self.positions[index]], ms.float32)
            batch, record = self.batches[index], self.records[index]
            self.operators[index](samples, gradient, self.gates[index], batch, record)
        return True


class StageLone(nn.Cell):
    """Stage a batch of each lone Parameter's statistics.

    Args:
        blocks: their curvature blocks.
        gates: of each block its gate.
        positions: of each block where its Parameter stands among the gradients.

    Inputs:
        - **gradients** (tuple[Tensor]) - of the mean loss, without a loss scale, one a parameter.
        - **samples** (Tensor) - N of the step, of all ranks together, scalar float32. With 0 the batches are
          staged without a weight.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    def __init__(self, blocks: Sequence[Any], gates: Sequence[Gate], positions: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        members = list(zip(blocks, gates, positions))
        self.few = nn.CellList([_FewLone(*zip(*own)) for own in in_rounds(members)], auto_prefix=False)

    def construct(self, gradients: tuple[Tensor, ...], samples: Tensor) -> bool:
        for few in self.few:
            few(gradients, samples)
        return True
