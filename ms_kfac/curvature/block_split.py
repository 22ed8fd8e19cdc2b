r"""THOR's block: K-FAC's factors, with only their diagonal blocks inverted.

.. math::
    U = \mathrm{diag}_i\left(G_{ii} + \tfrac{\sqrt\lambda}{\pi} I\right)^{-1} dW\,
        \mathrm{diag}_j\left(A_{jj} + \pi \sqrt\lambda I\right)^{-1}

where :math:`A_{jj}` and :math:`G_{ii}` are the diagonal blocks, of at most ``split`` rows each (Chen et al.
2021, "THOR, Trace-based Hardware-driven Layer-Oriented Natural Gradient Descent Computation"). With b rows
per block, inverting a factor costs :math:`O(d b^2)` instead of :math:`O(d^3)`. Applying the inverse to a row
costs :math:`O(d b)` instead of :math:`O(d^2)`.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.kronecker import KroneckerBlock
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.linalg.diagonal_blocks import DiagonalBlocks
from ms_kfac.ops.refresh.block_split_refresh import BlockSplitRefresh
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions
from ms_kfac.ops.step.kronecker_precondition import KroneckerForm
from ms_kfac.values import check_count


class BlockSplitBlock(KroneckerBlock):
    r"""Kronecker-factored Fisher block whose factors are inverted in diagonal blocks.

    The statistics are K-FAC's full factors, and so are ``factors()``, ``trace()`` and ``multiply()``.

    Args:
        layer: the layer; it must have one group.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        split: maximum number of rows of a diagonal block. Default: 128.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each factor
            :math:`\sqrt\lambda`. Default: "pi".
    """

    kind = "Kronecker, split"

    @classmethod
    def serves(cls, layer: Layer) -> bool:
        return super().serves(layer) and layer.groups == 1

    def __init__(
        self,
        layer: Layer,
        *,
        prefix: str,
        options: StatisticsOptions,
        split: int = 128,
        period: int = 1,
        damping_split: str = "pi",
    ) -> None:
        self.split = check_count("split", split)
        super().__init__(layer, prefix=prefix, options=options, period=period, damping_split=damping_split)

    def create_inverses(self) -> None:
        self.A_blocks = DiagonalBlocks(self.dim_A, self.split)
        self.G_blocks = DiagonalBlocks(self.dim_G, self.split)
        self.A_inverses, self.A_last_inverse = self._identities("A", self.A_blocks)
        self.G_inverses, self.G_last_inverse = self._identities("G", self.G_blocks)
        inverses = (self.A_inverses, self.A_last_inverse, self.G_inverses, self.G_last_inverse)
        arrays = (self.A_sum, self.G_sum, self.weights, *inverses)
        self.layer_refresh = BlockSplitRefresh(self.layer_name, arrays, split=self.split, splits=self.splits)

    def _identities(self, name: str, pieces: DiagonalBlocks) -> tuple[Parameter, Parameter]:
        # A Parameter can't be empty: a single unused number replaces a missing block.
        whole = np.broadcast_to(np.eye(pieces.split), (pieces.count, pieces.split, pieces.split))
        inverses = self.parameter(f"{name}_inverses", whole if pieces.count else np.zeros((1, 1, 1)))
        last = self.parameter(f"{name}_last_inverse", np.eye(max(pieces.rest, 1)))
        return inverses, last

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        pieces = (self.A_inverses, self.A_last_inverse, self.G_inverses, self.G_last_inverse)
        return tuple(SyncedTensor(piece, symmetric=True) for piece in pieces)

    def precondition(self, matrix: Tensor) -> Tensor:
        left = self.G_blocks.from_left(self.G_inverses, self.G_last_inverse, matrix)
        return self.A_blocks.from_right(left, self.A_inverses, self.A_last_inverse)

    def native_precondition(self) -> KroneckerForm:
        left = self._pieces_of(self.G_blocks, self.G_inverses, self.G_last_inverse)
        return KroneckerForm(left, self._pieces_of(self.A_blocks, self.A_inverses, self.A_last_inverse))

    @staticmethod
    def _pieces_of(pieces: DiagonalBlocks, whole: Parameter, last: Parameter) -> tuple[Parameter, ...]:
        present = (pieces.count > 0, whole), (pieces.rest > 0, last)
        return tuple(parameter for is_there, parameter in present if is_there)

    def dimensions(self) -> str:
        return f"A {self._pieces(self.A_blocks)}, G {self._pieces(self.G_blocks)}"

    @staticmethod
    def _pieces(pieces: DiagonalBlocks) -> str:
        if pieces.count == 0:
            return str(pieces.dimension)
        rest = f" + {pieces.rest}" if pieces.rest else ""
        return f"{pieces.dimension} ({pieces.count} x {pieces.split}{rest})"
