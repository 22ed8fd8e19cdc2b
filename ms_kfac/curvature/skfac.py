r"""SKFAC's block: :math:`F \approx A \otimes G` of one batch, with low-rank (Woodbury) inverses.

With the damping :math:`D = \sqrt\lambda` for both factors, or split between them by their traces as in K-FAC,

.. math::
    U = (G + D_G I)^{-1} dW (A + D_A I)^{-1}

Woodbury's identity inverts a factor of R < d rows (:mod:`ms_kfac.ops.linalg.low_rank_inverse`), so that
neither the factor nor its inverse is ever formed. A Cholesky decomposition inverts the other factors (Tang
et al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate Curvature").
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
from mindspore import Parameter, Tensor, ops
from mindspore.ops.primitive import constexpr
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.block import CurvatureBlock
from ms_kfac.ops.graph.counter_based_rng import rng_state
from ms_kfac.ops.graph.element import element
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.linalg.low_rank_inverse import LowRankInverse
from ms_kfac.ops.refresh.factored_tikhonov import splits_by_traces
from ms_kfac.ops.refresh.skfac_refresh import SKFACRefresh
from ms_kfac.ops.statistics.factor_ranks import FactorRanks, Ranks
from ms_kfac.ops.statistics.layer_statistics import GRADIENTS, INPUTS, StatisticsOptions
from ms_kfac.ops.statistics.skfac_statistics import SKFACOptions, SKFACStatistics
from ms_kfac.ops.step.skfac_precondition import SKFACForm
from ms_kfac.values import shown


class SKFACBlock(CurvatureBlock):
    r"""Kronecker-factored Fisher block of one batch, with each factor stored as rows or as a dense matrix.

    A grouped convolution has one pair of factors per group, along a leading axis of every matrix.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        skfac: how locations of a convolution become rows. Default: as in SKFAC.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.
        damping_split: "pi" splits the damping between the factors by their traces; "none" gives each factor
            :math:`\sqrt\lambda`. Default: "none".

    Attributes:
        ranks: the rank of each factor, which selects its form; decided when the first training step is
            compiled.

    Note:
        Until a backward pass has reached the layer, its gradient passes through unchanged.
    """

    kind = "SKFAC Kronecker"
    not_additive_reason = "SKFAC keeps the rows of a batch, and rows of several ranks can't be summed"

    def __init__(
        self,
        layer: Layer,
        *,
        prefix: str,
        options: StatisticsOptions,
        skfac: SKFACOptions = SKFACOptions(),  # noqa: B008 - frozen
        period: int = 1,
        damping_split: str = "none",
    ) -> None:
        if not isinstance(skfac, SKFACOptions):
            raise TypeError(f"skfac must be an SKFACOptions, got {shown(skfac)}")
        super().__init__(layer, prefix=prefix)
        self.dim_A = layer.input_dimension
        self.dim_G = layer.output_dimension
        for weight, (name, dim, gate) in enumerate((("A", self.dim_A, INPUTS), ("G", self.dim_G, GRADIENTS))):
            shape = (*self.leading, dim, dim)
            # Not declared symmetric: the buffer may hold rows, so that all its numbers are checked for NaN.
            self.add_statistic(
                name, shape, weight=weight, gate=gate, power=2 * weight, averaged=False, samples=name == "A"
            )
        # Numbers of rows of A and G, then the factors' ranks: see SKFACStatistics.
        self.create_weights(4, period)
        self.staged = (self.A_batch, self.G_batch, self.record)
        if skfac.spatial == "subsample" and layer.operators.channels_first:
            # In a Parameter, so that a resumed run draws what the uninterrupted one would.
            self.draws = rng_state(f"{self.name_prefix}.draws")
            self.staged = (*self.staged, self.draws)
        # Z of LowRankInverse followed by rows of zeros, or a dense inverse.
        self.A_solver = self.matrix_parameter("A_solver", np.eye(self.dim_A))
        self.G_solver = self.matrix_parameter("G_solver", np.eye(self.dim_G))
        # H becomes (H - H Zᵀ Z) / D. Before the first refresh Z has no rows, and H stays unchanged.
        self.A_damping = self.matrix_parameter("A_damping", np.ones((1, 1)))
        self.G_damping = self.matrix_parameter("G_damping", np.ones((1, 1)))
        self.solver_ranks = self.parameter("solver_ranks", np.zeros(2))
        ranks = FactorRanks(layer.name, (self.dim_A, self.dim_G), period, self.stored_ranks)
        self.__dict__["ranks"] = ranks
        self.factor_ranks = constexpr(fn=ranks.for_inverses, name="factor_ranks", reuse_result=False)
        stream = crc32(layer.name.encode()) % 2**31
        self.operator = SKFACStatistics(layer.operators, layer.groups, options, skfac, ranks, stream)
        solvers = (self.A_solver, self.G_solver, self.A_damping, self.G_damping, self.solver_ranks)
        arrays = (self.A_batch, self.G_batch, self.weights, *solvers)
        self.layer_refresh = SKFACRefresh(
            layer.name, arrays, self.factor_ranks, splits=splits_by_traces(damping_split)
        )
        self.low_rank_inverse = LowRankInverse(groups=self.groups)
        grouped = self.groups > 1
        self.matmul = ops.BatchMatMul() if grouped else ops.MatMul()
        self.outer = (ops.BatchMatMul if grouped else ops.MatMul)(transpose_a=True)
        self.sum_all = ops.ReduceSum()
        self.minimum = ops.Minimum()

    def stored_ranks(self) -> Ranks:
        """Ranks with which the current statistics were written; 0 without statistics."""
        ranks = self.weights.asnumpy()[2:]
        return int(ranks[0]), int(ranks[1])

    def check_checkpoint(self, checkpoint: Mapping[str, Parameter]) -> None:
        name = self.weights.name
        written = checkpoint[name].asnumpy()[2:] if name in checkpoint else ()
        for letter, loaded, rank in zip("AG", written, self.ranks.chosen or ()):
            if int(loaded) not in (0, rank):
                raise ValueError(
                    f"checkpoint: {name} was written for rank {int(loaded)} of {letter}, but the compiled "
                    f"steps use rank {rank}; load it into a new optimizer before its first step"
                )

    def expect_calls(self, calls: int, passes: int) -> None:
        short = [rank for rank, d in zip(self.ranks.chosen or (), (self.dim_A, self.dim_G)) if rank < d]
        if short and calls > 1 and passes > self.ranks.steps:
            warnings.warn(
                f"SKFAC: one backward pass calls layer {self.layer_name} {calls} times, but its curvature "
                f"has room for {max(short)} rows: the newest calls stand for all. In blocks=, "
                f"SKFACBlock(..., period={passes}) keeps all",
                stacklevel=2,
            )

    def statistics_now(self) -> tuple[Tensor, Tensor]:
        """A and G: rows X with the factor XᵀX if the rank is below the dimension, else the dense factor."""
        rank_A, rank_G = self.factor_ranks()
        A = self.layer_refresh.rows_or_factor(self.A_batch, self.weights, 0, self.dim_A, rank_A)
        G = self.layer_refresh.rows_or_factor(self.G_batch, self.weights, 1, self.dim_G, rank_G)
        return A, G

    def first_rows(self, matrices: Parameter, rank: int) -> Tensor:
        """``matrices[..., :rank, :]`` by a primitive: a compiled view may be read before a kernel writes."""
        shape = matrices.shape
        leading = shape[:-2]
        return self.slice(matrices, (0,) * len(shape), (*leading, rank, shape[-1]))

    def refreshed(self, side: int) -> Tensor:
        """1 if A (0) or G (1) has a solver, else 0."""
        return self.minimum(element(self.solver_ranks, side), 1.0)

    def precondition(self, matrix: Tensor) -> Tensor:
        rank_A, rank_G = self.factor_ranks()
        if rank_A < self.dim_A:
            projected = self.low_rank_inverse.projected_right(matrix, self.first_rows(self.A_solver, rank_A))
            matrix = (matrix - projected * self.refreshed(0)) / self.A_damping
        else:
            matrix = self.matmul(matrix, self.A_solver)
        if rank_G < self.dim_G:
            projected = self.low_rank_inverse.projected_left(matrix, self.first_rows(self.G_solver, rank_G))
            return (matrix - projected * self.refreshed(1)) / self.G_damping
        return self.matmul(self.G_solver, matrix)

    def native_precondition(self) -> SKFACForm:
        return SKFACForm(self.A_solver, self.G_solver, self.A_damping, self.G_damping, self.solver_ranks)

    def multiply(self, matrix: Tensor) -> Tensor:
        rank_A, rank_G = self.factor_ranks()
        A, G = self.statistics_now()
        if rank_A < self.dim_A:
            matrix = self.low_rank_inverse.projected_right(matrix, A)
        else:
            matrix = self.matmul(matrix, A)
        if rank_G < self.dim_G:
            return self.low_rank_inverse.projected_left(matrix, G)
        return self.matmul(G, matrix)

    def trace(self) -> Tensor:
        rank_A, rank_G = self.factor_ranks()
        A, G = self.statistics_now()
        trace_A = self.layer_refresh.factor_trace(A, self.dim_A, rank_A)
        return self.sum_all(trace_A * self.layer_refresh.factor_trace(G, self.dim_G, rank_G))

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        rank_A, rank_G = self.factor_ranks()
        A, G = self.statistics_now()
        if group == 0:
            return (self.outer(A, A) if rank_A < self.dim_A else A,)
        return (self.outer(G, G) if rank_G < self.dim_G else G,)

    def estimate_shapes(self, group: int) -> tuple[tuple[int, ...], ...]:
        # The ranks are unknown until the first step is compiled, so this does not use them.
        return (tuple(self.statistics[group].batch.shape),)

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        solvers = (
            SyncedTensor(self.A_solver),
            SyncedTensor(self.G_solver),
            SyncedTensor(self.A_damping),
            SyncedTensor(self.G_damping),
        )
        return (*solvers, SyncedTensor(self.solver_ranks))

    def factors(self) -> dict[str, NDArray[np.float32]]:
        weights = self.weights.asnumpy()
        return {
            "A": self.factor(self.A_batch.asnumpy(), weights[0], weights[2]),
            "G": self.factor(self.G_batch.asnumpy(), weights[1], weights[3]),
        }

    def factor(self, buffer: NDArray[Any], rows: float, rank: float) -> NDArray[np.float32]:
        """Compute a factor from its buffer, number of rows and rank."""
        if rows == 0.0:
            return np.zeros_like(buffer)
        if rank < buffer.shape[-1]:
            X = buffer[..., : int(rank), :]
            product: NDArray[np.float32] = np.swapaxes(X, -1, -2) @ X / np.float32(rows)
            return product
        average: NDArray[np.float32] = buffer / np.float32(rows)
        return average

    def dimensions(self) -> str:
        groups = f"{self.groups} x " if self.groups > 1 else ""
        if self.ranks.chosen is None:
            return f"{groups}A {self.dim_A}, G {self.dim_G} (chosen at the first step)"
        forms = [
            f"{letter} {dim} ({f'Woodbury, rank {rank}' if rank < dim else 'Cholesky'})"
            for letter, dim, rank in zip("AG", (self.dim_A, self.dim_G), self.ranks.chosen)
        ]
        return groups + ", ".join(forms)
