r"""What a tap calls for EKFAC: the factors, and second moments of the gradients in their eigenbasis."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor

from ms_kfac.ops.eigenbasis_moments import EigenbasisMoments
from ms_kfac.ops.statistics import LayerStatistics, StatisticsOptions


class EigenbasisStatistics(LayerStatistics):
    r"""Stage a batch of a layer's factors and of its second moments in the present basis.

    .. math::
        S_A = \sum_{n,t} p p^{\top}, \qquad S_G = \sum_{n,t} g g^{\top}, \qquad
        s = \sum_n \left(Q_G^{\top} \textstyle\sum_t g_{n,t} p_{n,t}^{\top} Q_A\right)^2

    with weights N, N T (N in the reduce setting) and N. Sharing changes the factors alone: they set the
    basis, while s is always of the true gradients of the samples (George et al. 2018, "Fast Approximate
    Natural Gradient Descent in a Kronecker-factored Eigenbasis").

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters.
        native: whether a kernel may run.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32; nothing is staged when it is 0. 4 takes s alone; 3
          everything, as does 7. With separate statistics 1 takes A alone, 2 G and s, and 5 A and s.
        - **A**, **G** (Parameter) - :math:`([g,] d, d)`, written in place.
        - **record** (Parameter) - float32, with weights of A, G and s, likewise.
        - **Q_A**, **Q_G** (Parameter) - :math:`([g,] d, d)`, the basis as columns, only read.
        - **s** (Parameter) - :math:`([g,] d_{out}, d_{in})`, written in place.

    Outputs:
        bool, True.

    The native form sums a sample's gradient over some locations at a time, and projects a side before that
    sum where the locations are fewer than the features of the other side, else after it. It keeps the
    gradients of a few samples, never those of the batch.

    Platforms: CPU, GPU (native or fallback), Ascend (composed of Im2Col, MatMul or BatchMatMul, Square,
    ReduceSum and Assign).
    """

    operator = "eigenbasis_statistics"
    weights = 3

    def __init__(self, operators: Any, options: StatisticsOptions, *, native: bool = True) -> None:
        super().__init__(operators, options, native=native)
        # Second moments are of whole gradients: they see every location, in the reduce setting too.
        self.locations_in = operators.activations(False)
        self.locations_out = operators.gradients(False)
        self.moments = EigenbasisMoments(columns=self.channels_first)

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        A: Parameter,
        G: Parameter,
        record: Parameter,
        Q_A: Parameter,
        Q_G: Parameter,
        s: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, A, G, record, Q_A, Q_G, s)
        elif gate > 0:
            samples = float(self.samples(x))
            taken = self.vector(samples, samples * self.locations(dout), samples)
            factors = gate % 4
            if self.separate:
                inputs, gradients = factors % 2, factors // 2
                moments = self.cast(gate > 1, ms.int32)
                if inputs > 0:
                    self.stage_inputs(x, A, record)
                if gradients > 0:
                    self.stage_gradients(x, dout, G, record)
                if moments > 0:
                    self.stage_moments(x, dout, record, Q_A, Q_G, s)
                flags = self.stack((inputs, gradients, moments))
            else:
                both = self.cast(factors > 0, ms.int32)
                if both > 0:
                    self.stage_inputs(x, A, record)
                    self.stage_gradients(x, dout, G, record)
                self.stage_moments(x, dout, record, Q_A, Q_G, s)
                flags = self.stack((both, both, both * 0 + 1))
            self.record_pass(x, dout, record, taken * self.cast(flags, ms.float32))
        return True

    def stage_inputs(self, x: Tensor, A: Parameter, record: Parameter) -> bool:
        """Stage the factor of inputs."""
        return self.stage(A, self.second_moment(self.activations(x)), record, 0)

    def stage_gradients(self, x: Tensor, dout: Tensor, G: Parameter, record: Parameter) -> bool:
        """Stage the factor of output gradients."""
        return self.stage(G, self.second_moment(self.output_gradients(x, dout)), record, 1)

    def stage_moments(
        self, x: Tensor, dout: Tensor, record: Parameter, Q_A: Parameter, Q_G: Parameter, s: Parameter
    ) -> bool:
        """Stage the second moments."""
        p, g = self.locations_in(x), self.scaled(x, self.locations_out(dout))
        return self.stage(s, self.moments(p, g, Q_A, Q_G, self.samples(x)), record, 2)
