r"""Statistics of SKFAC: the rows of a batch, or the sum of their outer products."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops
from mindspore.ops.primitive import constexpr

from ms_kfac.ops.graph.element import element
from ms_kfac.ops.statistics.factor_ranks import FactorRanks, Ranks
from ms_kfac.ops.statistics.layer_statistics import STAGED_WEIGHTS, LayerStatistics, StatisticsOptions
from ms_kfac.ops.statistics.location_sampling import LocationSampling
from ms_kfac.values import check_choice, check_count


@dataclass(frozen=True)
class SKFACOptions:
    """How SKFAC converts a batch to rows. All layers of an optimizer use the same options.

    Attributes:
        spatial: "sum", "mean" or "subsample", the treatment of a convolution's locations. Default: "sum".
        samples: number of locations per sample for "subsample". Default: 4.
    """

    spatial: str = "sum"
    samples: int = 4

    def __post_init__(self) -> None:
        """Check the options as SKFAC's constructor does.

        Raises:
            TypeError: if an option has the wrong type.
            ValueError: if an option is not one of the accepted values.
        """
        check_choice("spatial", self.spatial, ("sum", "mean", "subsample"))
        check_count("samples", self.samples)


class SKFACStatistics(LayerStatistics):
    r"""Stage the rows of a batch, when the gate is open.

    A factor is :math:`\frac1R \sum_r x_r x_r^{\top}` over R rows. The rows are scaled so that the factors are

    * dense layers on (N, d): :math:`A = \frac1N \sum_n a a^{\top}`, :math:`G = \frac1N \sum_n g g^{\top}`;
    * dense layers on (N, T, d): the factors of K-FAC's expand or reduce setting
      (:class:`ms_kfac.ops.statistics.kronecker_statistics.KroneckerStatistics`);
    * convolutions, "sum": averages over samples of the outer products of :math:`\bar p_n = \sum_t p_{n,t}`
      and of :math:`\hat g_n = \sum_t g_{n,t}`;
    * convolutions, "mean": the same with :math:`\bar p_n = \frac1T \sum_t p_{n,t}`,
      :math:`\hat g_n = \frac1T \sum_t g_{n,t}`;
    * convolutions, "subsample", with s random locations per sample, the same locations for both factors:
      :math:`A = \frac{T}{N s} \sum p p^{\top}`, :math:`G = \frac1{N s} \sum g g^{\top}`, unbiased estimates
      of KFC's factors in the expand setting (Grosse & Martens 2016)

    (Tang et al. 2021, "SKFAC: Training Neural Networks with Faster Kronecker-Factored Approximate
    Curvature").

    If a step has fewer rows than d, the buffer holds the rows, newest first, followed by rows of zeros. Later
    micro-batches of a step move earlier rows down. Otherwise the buffer holds the sum of the outer products.
    There is no moving average: the committed statistics are the staged batch.

    Args:
        operators: the layer's operators (:class:`ms_kfac.capture.layer.LayerOperators`).
        groups: number of channel groups.
        options: how a batch enters the statistics. ``sharing`` applies to dense layers only.
        skfac: how locations of a convolution become rows.
        ranks: ranks of the layer's factors.
        stream: stream number of this layer's random locations. Default: 1.
        native: False to always run the fallback. Default: True. Convolutions with
            "subsample" have no kernel.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32. 0 stages nothing. With separate statistics, 1 stages only A,
          2 stages only G, and 3 stages both; A and G then use different random locations.
        - **A_rows**, **G_rows** (Parameter) - :math:`([g,] d, d)`, written in place.
        - **record** (Parameter) - float32, written in place. Its weights are the number of rows in each
          buffer, then the ranks of A and G (:class:`ms_kfac.ops.statistics.factor_ranks.FactorRanks`).
        - **draws** (Parameter) - the state of the random locations, int32 (2,), written in place. Only with
          "subsample".

    Outputs:
        bool, True.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of built-in operators).
    """

    operator = "skfac_statistics"
    weights = 4

    def __init__(
        self,
        operators: Any,
        groups: int,
        options: StatisticsOptions,
        skfac: SKFACOptions,
        ranks: FactorRanks,
        stream: int = 1,
        *,
        native: bool = True,
    ) -> None:
        channels_first = operators.channels_first
        reduce = skfac.spatial != "subsample" if channels_first else options.sharing == "reduce"
        # ``sharing`` applies to dense layers only: a convolution always counts its locations.
        super().__init__(
            operators,
            replace(options, sharing="expand") if channels_first else options,
            native=native and not (channels_first and skfac.spatial == "subsample"),
            averages=skfac.spatial == "mean",
        )
        self.activations, self.gradients = operators.activations(reduce), operators.gradients(reduce)
        self.reduced = reduce
        self.grouped = groups > 1
        self.spatial = skfac.spatial if channels_first else "dense"
        self.samples_wanted = skfac.samples
        self.sampling = LocationSampling(skfac.samples, stream)
        self.__dict__["ranks"] = ranks
        self.expect_shape = constexpr(fn=self._expect, name="expect_rows", reuse_result=False)
        self.ranks_for = constexpr(fn=self._ranks_for, name="ranks_for_rows", reuse_result=False)
        product = ops.BatchMatMul if self.grouped else ops.MatMul
        self.outer = product(transpose_a=True)
        self.transpose = ops.Transpose()
        self.concat_rows = ops.Concat(axis=-2)
        if self.spatial != "subsample":
            # "subsample" has one random stream per layer. Other settings can share one compiled graph.
            self.__dict__["arguments"] = (operators, groups, options, skfac, native)
            self.__dict__["as_graph"] = self.run_shared

    def run_shared(self, x: Tensor, dout: Tensor, *state: Parameter) -> bool:
        """Run the compiled operator shared by layers of equal geometry and ranks, for PyNative mode."""
        ranks = self._ranks_for(tuple(self.located(x, dout).shape))
        return _shared_graph(*self.arguments, self.ranks.dimensions, ranks)(x, dout, *state)

    def within_graph(self) -> Any:
        """Return this Cell, which derives the kernel's ranks from the shapes."""
        return self

    def rows_of(self, shape: tuple[int, ...]) -> int:
        """Number of rows from a batch with locations of that shape, negative if the shape is dynamic."""
        return -1 if any(size is None or size < 0 for size in shape) else int(self.rows_brought(shape))

    def _expect(self, shape: tuple[int, ...]) -> bool:
        self.ranks.expect(self.rows_of(shape))
        return True

    def _ranks_for(self, shape: tuple[int, ...]) -> Ranks:
        rows = self.rows_of(shape)
        chosen: Ranks = self.ranks.for_statistics(rows)
        if rows < 0 and chosen != self.ranks.dimensions:
            raise ValueError(
                "set_inputs: SKFAC needs inputs without None after it has stored a batch of fixed size. "
                "Leave set_inputs out, so that MindSpore compiles a step for each shape"
            )
        return chosen

    def expect(self, x: Tensor, y: Tensor) -> bool:
        self.expect_shape(self.shape(self.located(x, y)))
        return True

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A_rows: Parameter,
        G_rows: Parameter,
        record: Parameter,
        draws: Parameter | None = None,
    ) -> bool:
        rank_A, rank_G = self.ranks_for(self.shape(self.located(x, dout)))
        if self.native:
            self.kernel(x, dout, gate, A_rows, G_rows, record, self.vector(float(rank_A), float(rank_G)))
            return True
        if gate > 0:
            if self.separate:
                inputs, gradients = gate % 2, gate // 2 % 2
                if inputs > 0:
                    drawn = self.draw(x, dout, draws)
                    self.put(self.activation_rows(x, dout, drawn), A_rows, record, 0, rank_A)
                if gradients > 0:
                    drawn = self.draw(x, dout, draws)
                    self.put(self.gradient_rows(x, dout, drawn), G_rows, record, 1, rank_G)
            else:
                drawn = self.draw(x, dout, draws)
                self.put(self.activation_rows(x, dout, drawn), A_rows, record, 0, rank_A)
                self.put(self.gradient_rows(x, dout, drawn), G_rows, record, 1, rank_G)
                inputs, gradients = gate * 0 + 1, gate * 0 + 1
            taken = self.stack(
                (
                    self.rows_taken(self.located(x, dout), A_rows, record, 0, rank_A),
                    self.rows_taken(self.located(x, dout), G_rows, record, 1, rank_G),
                    float(rank_A) - self.staged(record, 2),
                    float(rank_G) - self.staged(record, 3),
                )
            )
            flags = self.cast(self.stack((inputs, gradients, inputs, gradients)), ms.float32)
            self.record_pass(x, dout, record, taken * flags)
        return True

    def staged(self, record: Parameter, weight: int) -> Tensor:
        """A weight of the staged batch if this pass adds to it; 0 if this pass replaces it."""
        return element(record, STAGED_WEIGHTS + weight) * self.cast(self.joins(record), ms.float32)

    def rows_taken(
        self, located: Tensor, buffer: Parameter, record: Parameter, weight: int, rank: int
    ) -> Tensor:
        """Number of rows that this pass adds to a buffer, which holds at most ``rank`` rows if rank < d."""
        rows = self.rows_brought(self.shape(located))
        staged = self.staged(record, weight)
        if rank < self.shape(buffer)[-1]:
            return ops.minimum(staged + rows, float(rank)) - staged
        return staged * 0.0 + rows

    def rows_brought(self, shape: tuple[int, ...]) -> float:
        """Number of rows of a pass whose locations have that shape."""
        rows = shape[0] if len(shape) > 1 else 1
        if self.spatial == "dense" and not self.reduced:
            for size in shape[1:-1]:
                rows = rows * size
        if self.spatial == "subsample":
            rows = rows * min(self.samples_wanted, self.locations_of(shape))
        return float(rows)

    def subsamples(self, x: Tensor, dout: Tensor) -> bool:
        """Whether the operator subsamples the locations."""
        return self.spatial == "subsample" and self.samples_wanted < self.locations(x, dout)

    def draw(self, x: Tensor, dout: Tensor, draws: Any) -> Any:
        """Draw the locations for this batch; 0 if all locations are used."""
        if self.subsamples(x, dout):
            return self.sampling.draw(draws, self.samples(x), self.locations(x, dout))
        return 0

    def activation_rows(self, x: Tensor, dout: Tensor, drawn: Any) -> Tensor:
        """Scaled rows of inputs, shape ([g,] R, d)."""
        a = self.activations(x)
        if self.subsamples(x, dout):
            a = self.sampling(a, drawn)
        scale = 1.0
        if self.spatial == "sum":
            # ``activations`` averages over the locations.
            scale = float(self.locations(x, dout))
        elif self.spatial != "mean":
            # A is a sum over locations, but the mean over rows averages over them.
            scale = float(self.locations(x, dout)) ** 0.5
        if scale != 1.0:
            a = self.mul(a, scale)
        return self.as_rows(a)

    def gradient_rows(self, x: Tensor, dout: Tensor, drawn: Any) -> Tensor:
        """Scaled rows of per-sample output gradients, shape ([g,] R, d)."""
        g = self.output_gradients(x, dout)
        if self.subsamples(x, dout):
            g = self.sampling(g, drawn)
        if self.spatial == "mean":
            g = self.mul(g, 1.0 / self.locations(x, dout))
        return self.as_rows(g)

    def as_rows(self, columns: Tensor) -> Tensor:
        """Convert columns (N, [g,] d, T) to rows ([g,] N T, d). Rows are returned unchanged."""
        shape = self.shape(columns)
        if not self.channels_first:
            return columns
        if self.grouped:
            return self.reshape(self.transpose(columns, (1, 0, 3, 2)), (shape[1], -1, shape[2]))
        return self.reshape(self.transpose(columns, (0, 2, 1)), (-1, shape[1]))

    def put(self, rows: Tensor, buffer: Parameter, record: Parameter, weight: int, rank: int) -> bool:
        """Replace the contents of a buffer, or add to them."""
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
    skfac: SKFACOptions,
    native: bool,
    dimensions: Ranks,
    ranks: Ranks,
) -> Any:
    # No warning here: each layer has already warned about a batch with too many rows.
    settled = FactorRanks("", dimensions, 1, lambda: ranks, warns=False)
    shared = SKFACStatistics(operators, groups, options, skfac, settled, native=native)
    return ms.jit(shared.compiled)
