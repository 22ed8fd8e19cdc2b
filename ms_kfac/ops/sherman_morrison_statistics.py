r"""What a tap calls for Sherman-Morrison K-FAC: whole factors for a while, then diagonals alone."""

from __future__ import annotations

from typing import Any

from mindspore import Parameter, Tensor, nn

from ms_kfac.ops.diagonal_moment import DiagonalMoment
from ms_kfac.ops.statistics import LayerStatistics, StatisticsOptions


class ShermanMorrisonStatistics(LayerStatistics):
    r"""Add a batch to the diagonals of a layer's factors, and to the whole factors while they are wanted.

    .. math::
        D_A \mathrel{+}= \mathrm{diag} \sum_{n,t} p p^{\top}, \qquad
        D_G \mathrel{+}= \mathrm{diag} \sum_{n,t} g g^{\top}

    at every open gate, in :math:`O(d)` a location; and, while **full** is positive, the sums themselves, as
    :class:`ms_kfac.ops.kronecker_statistics.KroneckerStatistics` takes them, with the same weights: N for A,
    N T for G (N in the reduce setting).

    Args:
        activations: turns the layer's input into rows or columns.
        gradients: turns the layer's output gradient into the same layout.
        second_moment: sums the outer products of that layout.
        channels_first: layout of ``dout``.
        options: how a batch enters.
        geometry: for the native form, from the layer's ``native_geometry()``; None: composed.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; everything is left alone when it is 0. With separate
          statistics, 1 adds to A alone, 2 to G alone and 3 to both.
        - **A_sum**, **G_sum** (Parameter) - :math:`(d, d)` or :math:`(g, d, d)`, written in place while
          **full** is positive.
        - **A_diagonal**, **G_diagonal** (Parameter) - :math:`(d,)` or :math:`(g, d)`, written in place.
        - **counts** (Parameter) - :math:`(4,)`: the weights of A_sum, G_sum, A_diagonal and G_diagonal.
        - **full** (Parameter) - scalar float32, only read.

    Outputs:
        bool, True.

    The native form writes out no patches for a diagonal: it sums the squared images over the samples, and
    then what each kernel element sees of that sum.

    Platforms: CPU, GPU (native or composed), Ascend (composed of Im2Col, Square, ReduceSum and AssignAdd, and
    MatMul or BatchMatMul for the factors).
    """

    operator = "sherman_morrison_statistics"

    def __init__(
        self,
        activations: nn.Cell,
        gradients: nn.Cell,
        second_moment: nn.Cell,
        *,
        channels_first: bool,
        options: StatisticsOptions,
        geometry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            activations,
            gradients,
            second_moment,
            channels_first=channels_first,
            options=options,
            geometry=geometry,
        )
        self.diagonal_moment = DiagonalMoment(columns=self.channels_first)

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A_sum: Parameter,
        G_sum: Parameter,
        A_diagonal: Parameter,
        G_diagonal: Parameter,
        counts: Parameter,
        full: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, A_sum, G_sum, A_diagonal, G_diagonal, counts, full)
        elif self.separate:
            if gate % 2 > 0:
                self.add_inputs(x, A_sum, A_diagonal, counts, full)
            if gate > 1:
                self.add_gradients(x, dout, G_sum, G_diagonal, counts, full)
        elif gate > 0:
            p = self.activations(x)
            g = self.output_gradients(x, dout)
            self.assign_add(A_diagonal, self.diagonal_moment(p))
            self.assign_add(G_diagonal, self.diagonal_moment(g))
            A_weight = float(self.samples(x))
            G_weight = float(self.samples(x) * self.locations(dout))
            if full > 0:
                self.assign_add(A_sum, self.second_moment(p))
                self.assign_add(G_sum, self.second_moment(g))
                self.assign_add(counts, Tensor([A_weight, G_weight, A_weight, G_weight]))
            else:
                self.assign_add(counts, Tensor([0.0, 0.0, A_weight, G_weight]))
        return True

    def add_inputs(
        self, x: Tensor, A_sum: Parameter, A_diagonal: Parameter, counts: Parameter, full: Parameter
    ) -> bool:
        """Add a batch to the statistics of inputs."""
        p = self.activations(x)
        weight = float(self.samples(x))
        self.assign_add(A_diagonal, self.diagonal_moment(p))
        if full > 0:
            self.assign_add(A_sum, self.second_moment(p))
            self.assign_add(counts, Tensor([weight, 0.0, weight, 0.0]))
        else:
            self.assign_add(counts, Tensor([0.0, 0.0, weight, 0.0]))
        return True

    def add_gradients(
        self,
        x: Tensor,
        dout: Tensor,
        G_sum: Parameter,
        G_diagonal: Parameter,
        counts: Parameter,
        full: Parameter,
    ) -> bool:
        """Add a batch to the statistics of output gradients."""
        g = self.output_gradients(x, dout)
        weight = float(self.samples(x) * self.locations(dout))
        self.assign_add(G_diagonal, self.diagonal_moment(g))
        if full > 0:
            self.assign_add(G_sum, self.second_moment(g))
            self.assign_add(counts, Tensor([0.0, weight, 0.0, weight]))
        else:
            self.assign_add(counts, Tensor([0.0, 0.0, 0.0, weight]))
        return True
