r"""Statistics of Sherman-Morrison K-FAC (SMKFAC): full factors at first, then only their diagonals."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor

from ms_kfac.ops.statistics.diagonal_moment import DiagonalMoment
from ms_kfac.ops.statistics.layer_statistics import LayerStatistics, StatisticsOptions


class ShermanMorrisonStatistics(LayerStatistics):
    r"""Stage the diagonals of a layer's factors and, while **full** is positive, the full factors.

    .. math::
        D_A = \mathrm{diag} \sum_{n,t} p p^{\top}, \qquad D_G = \mathrm{diag} \sum_{n,t} g g^{\top}

    The diagonals are staged whenever the gate is open, at a cost of :math:`O(d)` per location. The full sums
    are those of :class:`ms_kfac.ops.statistics.kronecker_statistics.KroneckerStatistics`. The weights of sums
    and diagonals are N for A and N T for G (N in the reduce setting).

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters the statistics.
        native: False to always run the fallback. Default: True.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32. 0 stages nothing. With separate statistics, 1 stages only A,
          2 stages only G, and 3 stages both.
        - **A**, **G** (Parameter) - :math:`([g,] d, d)`, written in place while **full** is positive.
        - **A_diagonal**, **G_diagonal** (Parameter) - :math:`([g,] d)`, written in place.
        - **record** (Parameter) - float32, with the weights of A, G, A_diagonal and G_diagonal, written in
          place.
        - **full** (Parameter) - scalar float32, read only.

    Outputs:
        bool, True.

    The native kernel does not materialize patches for a diagonal. It first sums the squared images over the
    samples. For each kernel element, it then sums the part of the result that the element covers.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of Im2Col, Square, ReduceSum and Assign,
    and MatMul or BatchMatMul for the factors).
    """

    operator = "sherman_morrison_statistics"
    weights = 4

    def __init__(self, operators: Any, options: StatisticsOptions, *, native: bool = True) -> None:
        super().__init__(operators, options, native=native)
        self.diagonal_moment = DiagonalMoment(columns=self.channels_first)

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A: Parameter,
        G: Parameter,
        A_diagonal: Parameter,
        G_diagonal: Parameter,
        record: Parameter,
        full: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, A, G, A_diagonal, G_diagonal, record, full)
        elif gate > 0:
            samples = float(self.samples(x))
            weights = samples, samples * self.locations(x, dout)
            wanted = self.cast(full > 0, ms.float32)
            taken = self.vector(*weights, 0.0, 0.0) * wanted + self.vector(0.0, 0.0, *weights)
            if self.separate:
                inputs, gradients = gate % 2, gate // 2 % 2
                if inputs > 0:
                    self.stage_side(self.activations(x), A, A_diagonal, record, full, 0)
                if gradients > 0:
                    self.stage_side(self.output_gradients(x, dout), G, G_diagonal, record, full, 1)
                taken = taken * self.cast(self.stack((inputs, gradients, inputs, gradients)), ms.float32)
            else:
                self.stage_side(self.activations(x), A, A_diagonal, record, full, 0)
                self.stage_side(self.output_gradients(x, dout), G, G_diagonal, record, full, 1)
            self.record_pass(x, dout, record, taken)
        return True

    def stage_side(
        self,
        vectors: Tensor,
        factor: Parameter,
        diagonal: Parameter,
        record: Parameter,
        full: Parameter,
        side: int,
    ) -> bool:
        """Stage the statistics of inputs (side 0) or of output gradients (side 1)."""
        self.stage(diagonal, self.diagonal_moment(vectors), record, side + 2)
        if full > 0:
            self.stage(factor, self.second_moment(vectors), record, side)
        return True
