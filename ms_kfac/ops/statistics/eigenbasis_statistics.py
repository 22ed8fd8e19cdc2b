r"""Statistics of EKFAC: the Kronecker factors, and second moments of the gradients in their eigenbasis."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor

from ms_kfac.ops.statistics.eigenbasis_moments import EigenbasisMoments
from ms_kfac.ops.statistics.kronecker_statistics import FactorStatistics
from ms_kfac.ops.statistics.layer_statistics import StatisticsOptions


class EigenbasisStatistics(FactorStatistics):
    r"""Stage the factors and the second moments of a batch in the current eigenbasis.

    .. math::
        S_A = \sum_{n,t} p p^{\top}, \qquad S_G = \sum_{n,t} g g^{\top}, \qquad
        s = \sum_n \left(Q_G^{\top} \textstyle\sum_t g_{n,t} p_{n,t}^{\top} Q_A\right)^2

    with weights N, N T (N in the reduce setting) and N. ``sharing`` affects only the factors, which determine
    the basis. s always uses the exact per-sample gradients (George et al. 2018, "Fast Approximate Natural
    Gradient Descent in a Kronecker-factored Eigenbasis").

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters the statistics.
        native: False to always run the fallback. Default: True.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32. 0 stages nothing, 4 stages only s, and 3 or 7 stage A, G and s.
          With separate statistics, 1 stages only A, 2 stages G and s, and 5 stages A and s.
        - **A**, **G** (Parameter) - :math:`([g,] d, d)`, written in place.
        - **record** (Parameter) - float32, with the weights of A, G and s, written in place.
        - **Q_A**, **Q_G** (Parameter) - :math:`([g,] d, d)`, the basis vectors as columns, read only.
        - **s** (Parameter) - :math:`([g,] d_{out}, d_{in})`, written in place.

    Outputs:
        bool, True.

    The native kernel adds up a sample's gradient in chunks of locations. It projects a side before the sum
    if there are fewer locations than features on the other side, and after the sum otherwise. It holds the
    gradients of a few samples, never of the whole batch.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of Im2Col, MatMul or BatchMatMul,
    Square, ReduceSum and Assign).
    """

    operator = "eigenbasis_statistics"
    weights = 3

    def __init__(self, operators: Any, options: StatisticsOptions, *, native: bool = True) -> None:
        super().__init__(operators, options, native=native)
        # Second moments use exact per-sample gradients, so they need all locations in the reduce setting too.
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
            taken = self.vector(samples, samples * self.locations(x, dout), samples)
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

    def stage_moments(
        self, x: Tensor, dout: Tensor, record: Parameter, Q_A: Parameter, Q_G: Parameter, s: Parameter
    ) -> bool:
        """Stage the second moments."""
        p, g = self.locations_in(x), self.scaled(x, self.locations_out(dout))
        return self.stage(s, self.moments(p, g, Q_A, Q_G, self.samples(x)), record, 2)
