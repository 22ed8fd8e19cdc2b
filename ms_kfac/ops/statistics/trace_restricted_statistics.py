r"""Trace-restricted Kronecker statistics (TKFAC): outer products weighted by the other side's squared norm.

With :math:`t_a = \lVert a \rVert^2` and :math:`t_g = \lVert g \rVert^2` at each sample and location, the
approximation :math:`F \approx \delta\, \Phi \otimes \Psi` needs

.. math::
    N_\Phi = \sum_{n,t} t_g\, a a^{\top}, \qquad N_\Psi = \sum_{n,t} t_a\, g g^{\top}, \qquad
    N_\delta = \sum_{n,t} t_a t_g

(Gao et al. 2021, "A Trace-restricted Kronecker-Factored Approximation to Natural Gradient", equation 8 and
theorem 3). :math:`\mathrm{tr} N_\Phi = \mathrm{tr} N_\Psi = N_\delta`, so :math:`\Phi = N_\Phi / N_\delta`
and :math:`\Psi = N_\Psi / N_\delta` have trace one.
"""

from __future__ import annotations

from typing import Any

from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.statistics.layer_statistics import LayerStatistics, StatisticsOptions


class TraceRestrictedStatistics(LayerStatistics):
    r"""Stage the partial traces of a batch, when the gate is open.

    .. math::
        S_\Phi = \sum_{n,t} \mathrm{tr}(g g^{\top})\, a a^{\top}, \qquad
        S_\Psi = \sum_{n,t} \mathrm{tr}(a a^{\top})\, g g^{\top}, \qquad
        S_\delta = \sum_{n,t} \mathrm{tr}(a a^{\top})\, \mathrm{tr}(g g^{\top})

    The weight is :math:`n = N` samples. The statistics are thus sums over locations and means over samples:
    if the products a g of a convolution are uncorrelated between locations, its Fisher block is
    :math:`\sum_t E[a_t a_t^{\top} \otimes g_t g_t^{\top}]` (theorem 2). In the reduce setting, a is the mean
    over locations, g is the sum over locations, and there is one location.

    Equation (12) of the paper cannot be intended as printed. It weights :math:`a a^{\top}` in :math:`\Phi` by
    :math:`\mathrm{tr}(a a^{\top})` instead of :math:`\mathrm{tr}(g g^{\top})`. It also divides each location
    by the expectation of that location instead of the sum of these expectations. With equation (12), neither
    :math:`\Phi` nor :math:`\Psi` has trace one, and a single location does not give the formulas of dense
    layers (equation 8). The formulas above satisfy both conditions.

    The operator scales rows by the square root of their weight before the product. Scaling one side of the
    product would cost the same, but this way each factor is the product of a matrix with its own transpose.

    Args:
        operators: how the layer's input and output gradient become rows or columns.
        options: how a batch enters the statistics.
        native: False to always run the fallback. Default: True.

    Inputs:
        - **x** (Tensor) - the layer's input.
        - **dout** (Tensor) - gradient of the reduced loss with respect to the layer's linear output.
        - **gate** (Parameter) - scalar int32. 0 stages nothing. Any other value stages all statistics,
          because both matrices need x and dout.
        - **Phi** (Parameter) - :math:`([g,] d_{in}, d_{in})`, **Psi** (Parameter) - :math:`([g,] d_{out},
          d_{out})`, **delta** (Parameter) - scalar, or :math:`(g, 1, 1)` for g groups, **record** (Parameter)
          - written in place.

    Outputs:
        bool, True.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of Im2Col, MatMul or BatchMatMul,
    Assign).
    """

    operator = "trace_restricted_statistics"

    def __init__(self, operators: Any, options: StatisticsOptions, *, native: bool = True) -> None:
        super().__init__(operators, options, native=native)
        self.feature_axis = -2 if self.channels_first else -1
        self.sample_axes = (0, -1) if self.channels_first else (0,)
        self.square = ops.Square()
        self.sqrt = ops.Sqrt()
        self.sum_features = ops.ReduceSum(keep_dims=True)
        self.sum_samples = ops.ReduceSum()

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        Phi: Parameter,
        Psi: Parameter,
        delta: Parameter,
        record: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, Phi, Psi, delta, record)
        elif gate > 0:
            a = self.activations(x)
            g = self.output_gradients(x, dout)
            norms_a = self.sum_features(self.square(a), self.feature_axis)
            norms_g = self.sum_features(self.square(g), self.feature_axis)
            self.stage(Phi, self.second_moment(self.mul(a, self.sqrt(norms_g))), record, 0)
            self.stage(Psi, self.second_moment(self.mul(g, self.sqrt(norms_a))), record, 0)
            self.stage(delta, self.sum_samples(self.mul(norms_a, norms_g), self.sample_axes), record, 0)
            self.record_pass(x, dout, record, self.vector(float(self.samples(x))))
        return True
