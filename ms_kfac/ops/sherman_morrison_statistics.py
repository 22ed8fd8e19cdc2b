r"""What a tap calls for Sherman-Morrison K-FAC: whole factors for a while, then diagonals alone."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor

from ms_kfac.ops.diagonal_moment import DiagonalMoment
from ms_kfac.ops.statistics import LayerStatistics, StatisticsOptions


class ShermanMorrisonStatistics(LayerStatistics):
    r"""Stage the diagonals of a layer's factors, and the whole factors while they are wanted.

    .. math::
        D_A = \mathrm{diag} \sum_{n,t} p p^{\top}, \qquad D_G = \mathrm{diag} \sum_{n,t} g g^{\top}

    at every open gate, in :math:`O(d)` per location; and, while **full** is positive, the sums themselves, as
    :class:`ms_kfac.ops.kronecker_statistics.KroneckerStatistics` takes them, with the same weights: N for A,
    N T for G (N in the reduce setting).

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters.
        native: whether a kernel may run.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; nothing is staged when it is 0. With separate
          statistics, 1 takes A alone, 2 G alone and 3 both.
        - **A**, **G** (Parameter) - :math:`([g,] d, d)`, written in place while **full** is positive.
        - **A_diagonal**, **G_diagonal** (Parameter) - :math:`([g,] d)`, written in place.
        - **record** (Parameter) - float32, with weights of A, G, A_diagonal and G_diagonal, likewise.
        - **full** (Parameter) - scalar float32, only read.

    Outputs:
        bool, True.

    The native form writes out no patches for a diagonal: it sums the squared images over the samples, and
    then what each kernel element sees of that sum.

    Platforms: CPU, GPU (native or fallback), Ascend (composed of Im2Col, Square, ReduceSum and Assign, and
    MatMul or BatchMatMul for the factors).
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
            weights = samples, samples * self.locations(dout)
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
