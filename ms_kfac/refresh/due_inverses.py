"""Refresh of the inverses that are due: many layers in one native call, the other layers one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.graph.rounds import in_rounds
from ms_kfac.ops.refresh.layer_refresh import fused_refresh


class _JointCall(nn.Cell):
    """One native call for several layers.

    Args:
        parts: specifications from ``native_refresh`` of the layers' blocks, all for one operator.
        layers: indices of these layers among all layers.
        of: total number of layers.
        reporter: number of the reporter that is told of layers whose inverses can't be computed.
    """

    def __init__(self, parts: Sequence[Any], layers: Sequence[int], of: int, reporter: int) -> None:
        super().__init__(auto_prefix=False)
        self.kernel = fused_refresh(parts, reporter)
        self.arrays = ParameterTuple([array for part in parts for array in part.arrays])
        self.takes_all = len(layers) == of
        self.layers = Tensor(np.array(layers, np.int32))
        self.gather = ops.Gather()

    def construct(self, due: Tensor, damping: Tensor, by_layer: bool) -> bool:
        if by_layer and not self.takes_all:
            due = self.gather(due, self.layers, 0)
        self.kernel(due, damping, *self.arrays)
        return True


class _EachAlone(nn.Cell):
    """Refreshes a few layers one by one.

    Args:
        blocks: curvature blocks of the layers.
        layers: indices of these layers among all layers.
    """

    def __init__(self, blocks: Sequence[Any], layers: Sequence[int]) -> None:
        super().__init__(auto_prefix=False)
        self.blocks = nn.CellList(list(blocks), auto_prefix=False)
        self.layers = tuple(layers)

    def construct(self, due: Tensor, damping: Tensor, by_layer: bool) -> bool:
        for index in range(len(self.blocks)):
            if by_layer:
                if due[self.layers[index]] > 0:
                    self.blocks[index].refresh(damping)
            else:
                self.blocks[index].refresh(damping)
        return True


class DueInverses(nn.Cell):
    """Refreshes the blocks that are due.

    The compiled step has no branch for this if all blocks have native kernels.

    Args:
        blocks: the curvature blocks.
        owned: indices of the blocks that this rank refreshes; None for all. Default: None.

    Inputs:
        - **due** (Tensor) - int32, 0 for no refresh: shape () for all blocks together, or (blocks,) with one
          element per block.
        - **damping** (Tensor) - scalar float32.

    Outputs:
        bool, True.
    """

    def __init__(self, blocks: Sequence[Any], owned: Sequence[int] | None = None) -> None:
        super().__init__(auto_prefix=False)
        here = range(len(blocks)) if owned is None else owned
        parts = {index: blocks[index].native_refresh() for index in here}
        members: dict[str, list[int]] = {}
        for index, part in parts.items():
            if part is not None:
                members.setdefault(part.operator, []).append(index)
        self.calls = nn.CellList(
            [
                _JointCall(
                    [parts[index] for index in indices], indices, len(blocks), blocks[indices[0]].reporter
                )
                for indices in members.values()
            ],
            auto_prefix=False,
        )
        alone = [index for index, part in parts.items() if part is None]
        self.alone = nn.CellList(
            [_EachAlone([blocks[index] for index in own], own) for own in in_rounds(alone)], auto_prefix=False
        )

    def construct(self, due: Tensor, damping: Tensor) -> bool:
        by_layer = len(due.shape) > 0
        for call in self.calls:
            call(due, damping, by_layer)
        if by_layer or (len(self.alone) > 0 and due > 0):
            for few in self.alone:
                few(due, damping, by_layer)
        return True
