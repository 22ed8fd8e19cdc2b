r"""The operator that a tap calls for SKFAC: keep a batch's rows, or the sum of their outer products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops
from mindspore.ops.primitive import constexpr

from ms_kfac.ops.element import element
from ms_kfac.ops.factor_ranks import FactorRanks, Ranks
from ms_kfac.ops.location_sampling import LocationSampling
from ms_kfac.ops.statistics import STAGED_WEIGHTS, LayerStatistics, StatisticsOptions


@dataclass(frozen=True)
class SwiftOptions:
    """How SKFAC turns a batch into rows; the same for all layers of an optimizer.

    Attributes:
        spatial: "sum", "mean" or "subsample", for convolutions. Default: "sum".
        samples: locations a sample for "subsample". Default: 4.
    """

    spatial: str = "sum"
    samples: int = 4

    def __post_init__(self) -> None:
        """Refuse what SKFAC's constructor would refuse."""
        if self.spatial not in ("sum", "mean", "subsample"):
            raise ValueError(f"spatial must be 'sum', 'mean' or 'subsample', got {self.spatial!r}")
        if self.samples < 1:
            raise ValueError(f"samples must be an int of at least 1, got {self.samples!r}")


class SwiftStatistics(LayerStatistics):
    r"""Keep the rows of a batch as they are, when the gate is open.

    A factor is :math:`\frac1R \sum_r x_r x_r^{\top}` over R rows. Each row carries a scale, so that

    * dense layers on (N, d): :math:`A = \frac1N \sum_n a a^{\top}`, :math:`G = \frac1N \sum_n g g^{\top}`;
    * dense layers on (N, T, d): K-FAC's expand or reduce setting
      (:class:`ms_kfac.ops.kronecker_statistics.KroneckerStatistics`);
    * convolutions, "sum": :math:`\bar p_n = \sum_t p_{n,t}`, :math:`\hat g_n = \sum_t g_{n,t}`, averages of
      their outer products over samples;
    * "mean": :math:`\bar p_n = \frac1T \sum_t p_{n,t}`, :math:`\hat g_n = \frac1T \sum_t g_{n,t}`;
    * "subsample" with s random locations a sample, the same for both factors:
      :math:`A = \frac{T}{N s} \sum p p^{\top}`, :math:`G = \frac1{N s} \sum g g^{\top}`, unbiased estimates
      of KFC's factors in the expand setting (Grosse & Martens 2016)

    (Tang et al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
    Curvature").

    Where a step's rows are fewer than d the buffer holds them, newest first, and zeros below; micro-batches
    of one step push earlier rows down. Otherwise it holds the sum of their outer products. There is no moving
    average: what is staged is what is committed.

    Args:
        operators: the layer's operators (:class:`ms_kfac.capture.layer.LayerOperators`).
        groups: channel groups.
        options: how a batch enters; ``sharing`` counts for dense layers only.
        swift: how locations of a convolution become rows.
        ranks: how the layer's factors are kept.
        stream: tells this layer's random locations from other layers'.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; nothing is staged when it is 0. With separate
          statistics, 1 takes A alone, 2 G alone and 3 both; locations are then drawn for each on its own.
        - **A_rows**, **G_rows** (Parameter) - :math:`([g,] d, d)`, written in place.
        - **record** (Parameter) - float32, likewise; its weights are the rows in each buffer, and the ranks
          of A and of G as :class:`ms_kfac.ops.factor_ranks.FactorRanks` has them.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).
    """

    weights = 4

    def __init__(
        self,
        operators: Any,
        groups: int,
        options: StatisticsOptions,
        swift: SwiftOptions,
        ranks: FactorRanks,
        stream: int = 1,
    ) -> None:
        channels_first = operators.channels_first
        reduce = swift.spatial != "subsample" if channels_first else options.sharing == "reduce"
        # Locations of a convolution are counted whatever the setting of dense layers is.
        super().__init__(operators, replace(options, sharing="expand") if channels_first else options)
        self.activations, self.gradients = operators.activations(reduce), operators.gradients(reduce)
        self.reduced = reduce
        self.grouped = groups > 1
        self.spatial = swift.spatial if channels_first else "dense"
        self.samples_wanted = swift.samples
        self.sampling = LocationSampling(swift.samples, stream)
        self.__dict__["ranks"] = ranks
        self.expect_shape = constexpr(fn=self._expect, name="expect_rows", reuse_result=False)
        self.ranks_for = constexpr(fn=self._ranks_for, name="ranks_for_rows", reuse_result=False)
        product = ops.BatchMatMul if self.grouped else ops.MatMul
        self.outer = product(transpose_a=True)
        self.transpose = ops.Transpose()
        self.concat_rows = ops.Concat(axis=-2)
        if self.spatial != "subsample":
            # Random locations are a stream a layer; the others need no compilation of their own.
            self.__dict__["arguments"] = (operators, groups, options, swift)
            self.__dict__["as_graph"] = self.run_shared

    def run_shared(self, x: Tensor, dout: Tensor, *state: Parameter) -> bool:
        """For PyNative mode: the compiled operator that layers of one geometry and the same ranks share."""
        ranks = self._ranks_for(tuple(dout.shape))
        return _shared_graph(*self.arguments, self.ranks.dimensions, ranks)(x, dout, *state)

    def rows_of(self, shape: tuple[int, ...]) -> int:
        """Rows that an output gradient of that shape brings; negative where the shape is dynamic."""
        return -1 if any(size < 0 for size in shape) else int(self.rows_brought(shape))

    def _expect(self, shape: tuple[int, ...]) -> bool:
        self.ranks.expect(self.rows_of(shape))
        return True

    def _ranks_for(self, shape: tuple[int, ...]) -> Ranks:
        chosen: Ranks = self.ranks.for_statistics(self.rows_of(shape))
        return chosen

    def expect(self, x: Tensor, y: Tensor) -> bool:
        self.expect_shape(self.shape(y))
        return True

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A_rows: Parameter,
        G_rows: Parameter,
        record: Parameter,
    ) -> bool:
        rank_A, rank_G = self.ranks_for(self.shape(dout))
        if gate > 0:
            if self.separate:
                inputs, gradients = gate % 2, gate // 2 % 2
                if inputs > 0:
                    self.put(self.activation_rows(x, dout, self.draw(x, dout)), A_rows, record, 0, rank_A)
                if gradients > 0:
                    self.put(self.gradient_rows(x, dout, self.draw(x, dout)), G_rows, record, 1, rank_G)
            else:
                drawn = self.draw(x, dout)
                self.put(self.activation_rows(x, dout, drawn), A_rows, record, 0, rank_A)
                self.put(self.gradient_rows(x, dout, drawn), G_rows, record, 1, rank_G)
                inputs, gradients = gate * 0 + 1, gate * 0 + 1
            taken = self.stack(
                (
                    self.rows_taken(dout, A_rows, record, 0, rank_A),
                    self.rows_taken(dout, G_rows, record, 1, rank_G),
                    float(rank_A) - self.staged(record, 2),
                    float(rank_G) - self.staged(record, 3),
                )
            )
            flags = self.cast(self.stack((inputs, gradients, inputs, gradients)), ms.float32)
            self.record_pass(x, dout, record, taken * flags)
        return True

    def staged(self, record: Parameter, weight: int) -> Tensor:
        """A weight of the batch that this pass joins; 0 where it replaces it."""
        return element(record, STAGED_WEIGHTS + weight) * self.cast(self.joins(record), ms.float32)

    def rows_taken(
        self, dout: Tensor, buffer: Parameter, record: Parameter, weight: int, rank: int
    ) -> Tensor:
        """Rows that this pass adds to a buffer, which has room for ``rank`` of them where that is below d."""
        rows = self.rows_brought(self.shape(dout))
        staged = self.staged(record, weight)
        if rank < self.shape(buffer)[-1]:
            return ops.minimum(staged + rows, float(rank)) - staged
        return staged * 0.0 + rows

    def rows_brought(self, shape: tuple[int, ...]) -> float:
        """Rows of a pass whose output gradient has that shape."""
        rows = shape[0] if len(shape) > 1 else 1
        if self.spatial == "dense" and not self.reduced:
            for size in shape[1:-1]:
                rows = rows * size
        if self.spatial == "subsample":
            rows = rows * min(self.samples_wanted, shape[2] * shape[3])
        return float(rows)

    def draws(self, dout: Tensor) -> bool:
        """Whether some locations are left out."""
        return self.spatial == "subsample" and self.samples_wanted < self.locations(dout)

    def draw(self, x: Tensor, dout: Tensor) -> Any:
        """The locations of this batch; 0 where all of them count."""
        if self.draws(dout):
            return self.sampling.draw(self.samples(x), self.locations(dout))
        return 0

    def activation_rows(self, x: Tensor, dout: Tensor, drawn: Any) -> Tensor:
        """Rows of inputs with their scale, shape ([g,] R, d)."""
        a = self.activations(x)
        if self.draws(dout):
            a = self.sampling(a, drawn)
        scale = 1.0
        if self.spatial == "sum":
            # The operator averages over the locations.
            scale = float(self.locations(dout))
        elif self.spatial != "mean":
            # A sums over locations where the mean over rows averages over them.
            scale = float(self.locations(dout)) ** 0.5
        if scale != 1.0:
            a = self.mul(a, scale)
        return self.as_rows(a)

    def gradient_rows(self, x: Tensor, dout: Tensor, drawn: Any) -> Tensor:
        """Rows of per-sample output gradients with their scale, shape ([g,] R, d)."""
        g = self.output_gradients(x, dout)
        if self.draws(dout):
            g = self.sampling(g, drawn)
        if self.spatial == "mean":
            g = self.mul(g, 1.0 / self.locations(dout))
        return self.as_rows(g)

    def as_rows(self, columns: Tensor) -> Tensor:
        """Columns (N, [g,] d, T) as rows ([g,] N T, d); rows stay as they are."""
        shape = self.shape(columns)
        if not self.channels_first:
            return columns
        if self.grouped:
            return self.reshape(self.transpose(columns, (1, 0, 3, 2)), (shape[1], -1, shape[2]))
        return self.reshape(self.transpose(columns, (0, 2, 1)), (-1, shape[1]))

    def put(self, rows: Tensor, buffer: Parameter, record: Parameter, weight: int, rank: int) -> bool:
        """Replace or join what a buffer holds."""
        d = self.shape(buffer)[-1]
        number = self.shape(rows)[-2]
        joins = self.logical_and(self.joins(record), element(record, STAGED_WEIGHTS + weight) > 0.0)
        kept = ops.where(joins, buffer, 0.0)
        if rank < d:
            if number > rank:
                number = rank
                rows = rows[..., :rank, :]
            self.assign(buffer, self.concat_rows((rows, kept[..., : d - number, :])))
        else:
            self.assign(buffer, kept + self.outer(rows, rows))
        return True


@cache
def _shared_graph(
    operators: Any,
    groups: int,
    options: StatisticsOptions,
    swift: SwiftOptions,
    dimensions: Ranks,
    ranks: Ranks,
) -> Any:
    # The layers have warned already where a batch does not fit.
    settled = FactorRanks("", dimensions, 1, lambda: ranks, warns=False)
    return ms.jit(SwiftStatistics(operators, groups, options, swift, settled).compiled)
