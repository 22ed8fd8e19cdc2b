r"""Trace-restricted Kronecker statistics: outer products weighted by the other side's norm.

With :math:`t_a = \lVert a \rVert^2` and :math:`t_g = \lVert g \rVert^2` at every sample and location, the
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

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.statistics import LayerStatistics, StatisticsOptions


class TraceRestrictedStatistics(LayerStatistics):
    r"""Add a batch to a layer's partial traces, when the gate is open.

    .. math::
        S_\Phi \mathrel{+}= \sum_{n,t} \mathrm{tr}(g g^{\top})\, a a^{\top}, \qquad
        S_\Psi \mathrel{+}= \sum_{n,t} \mathrm{tr}(a a^{\top})\, g g^{\top}, \qquad
        S_\delta \mathrel{+}= \sum_{n,t} \mathrm{tr}(a a^{\top})\, \mathrm{tr}(g g^{\top})

    with the weight :math:`n \mathrel{+}= N` samples: sums over locations and means over samples, because the
    Fisher block of a convolution whose products a g are uncorrelated between locations is
    :math:`\sum_t E[a_t a_t^{\top} \otimes g_t g_t^{\top}]` (theorem 2). In the reduce setting a is the mean
    and g the sum over locations, and there is one location.

    Equation (12) of the paper can't be what is meant: it weights :math:`a a^{\top}` in :math:`\Phi` by
    :math:`\mathrm{tr}(a a^{\top})` in the place of :math:`\mathrm{tr}(g g^{\top})` and divides each location
    by its own expectation in the place of their sum. With it neither the trace of :math:`\Phi` nor that of
    :math:`\Psi` is one, and the formulas of dense layers (equation 8) do not come out for a single location.
    What is above does both.

    Rows are scaled by the root of their weight before the symmetric product: that costs one pass over the
    rows, as scaling one side of the product would, but leaves it a product of a matrix with itself.

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
        - **gate** (Parameter) - scalar int32; the statistics are left alone when it is 0. Whatever else it
          holds opens all of them: both matrices need both x and dout.
        - **Phi_sum** (Parameter) - :math:`([g,] d_{in}, d_{in})`, written in place.
        - **Psi_sum** (Parameter) - :math:`([g,] d_{out}, d_{out})`, written in place.
        - **delta_sum** (Parameter) - scalar, or :math:`(g, 1, 1)` for g groups, written in place.
        - **count** (Parameter) - scalar, written in place.

    Outputs:
        bool, True.

    Platforms: CPU, GPU (native or composed), Ascend (composed of Im2Col, MatMul or BatchMatMul, AssignAdd).
    """

    operator = "trace_restricted_statistics"

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
            activations, gradients, second_moment, channels_first=channels_first, options=options
        )
        self.use_native(geometry, roots=False)
        self.feature_axis = -2 if channels_first else -1
        self.sample_axes = (0, -1) if channels_first else (0,)
        self.square = ops.Square()
        self.sqrt = ops.Sqrt()
        self.reshape = ops.Reshape()
        self.sum_features = ops.ReduceSum(keep_dims=True)
        self.sum_samples = ops.ReduceSum()

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        Phi_sum: Parameter,
        Psi_sum: Parameter,
        delta_sum: Parameter,
        count: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, Phi_sum, Psi_sum, delta_sum, count)
        elif gate > 0:
            Phi, Psi, delta = self.partial_traces(x, dout)
            self.assign_add(Phi_sum, Phi)
            self.assign_add(Psi_sum, Psi)
            self.assign_add(delta_sum, self.reshape(delta, self.shape(delta_sum)))
            self.assign_add(count, float(self.samples(x)))
        return True

    def partial_traces(self, x: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The batch's three sums; that of the products of norms with shape (1,), or (g, 1) for g groups."""
        a = self.activations(x)
        g = self.output_gradients(x, dout)
        norms_a = self.sum_features(self.square(a), self.feature_axis)
        norms_g = self.sum_features(self.square(g), self.feature_axis)
        Phi = self.second_moment(self.mul(a, self.sqrt(norms_g)))
        Psi = self.second_moment(self.mul(g, self.sqrt(norms_a)))
        return Phi, Psi, self.sum_samples(self.mul(norms_a, norms_g), self.sample_axes)


class TraceRestrictedRootStatistics(TraceRestrictedStatistics):
    r"""Add a batch's own :math:`\sqrt{\delta} \Phi` and :math:`\sqrt{\delta} \Psi`, when the gate is open.

    With :math:`\delta_b`, :math:`\Phi_b` and :math:`\Psi_b` of the batch alone and
    :math:`\tilde\delta_b = \max(\nu, \delta_b)`,

    .. math::
        S_\Phi \mathrel{+}= N \sqrt{\tilde\delta_b}\, \Phi_b, \qquad
        S_\Psi \mathrel{+}= N \sqrt{\tilde\delta_b}\, \Psi_b, \qquad
        S_\delta \mathrel{+}= N (\delta_b, s(\tilde\delta_b)), \qquad n \mathrel{+}= N

    with s the identity or the square root: what Gao et al. 2021 average (equations 17 and 18), apart from
    the diagonal, which is added at inversion. A batch enters through the root of its trace, so two
    micro-batches do not add up to their union exactly.

    Args:
        activations: turns the layer's input into rows or columns.
        gradients: turns the layer's output gradient into the same layout.
        second_moment: sums the outer products of that layout.
        channels_first: layout of ``dout``.
        options: how a batch enters.
        floor: :math:`\nu`; 0 leaves :math:`\delta_b` as it is.
        homogeneous: whether s is the square root.
        geometry: for the native form, from the layer's ``native_geometry()``; None: composed.

    Inputs:
        - **x**, **dout**, **gate**, **Phi_sum**, **Psi_sum**, **count** - as in
          :class:`TraceRestrictedStatistics`.
        - **traces** (Parameter) - shape (2,), or :math:`(2, g, 1, 1)` for g groups, written in place.

    Outputs:
        bool, True.

    Platforms: CPU, GPU (native or composed), Ascend (composed of Im2Col, MatMul or BatchMatMul, AssignAdd).
    """

    operator = "trace_restricted_statistics"
    # Below any trace that float32 statistics resolve; keeps 0 / 0 at 0 where a batch brings no signal.
    SMALLEST_TRACE = 1e-30

    def __init__(
        self,
        activations: nn.Cell,
        gradients: nn.Cell,
        second_moment: nn.Cell,
        *,
        channels_first: bool,
        options: StatisticsOptions,
        floor: float,
        homogeneous: bool,
        geometry: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            activations, gradients, second_moment, channels_first=channels_first, options=options
        )
        self.floor = floor
        self.homogeneous = homogeneous
        self.smallest_trace = self.SMALLEST_TRACE
        self.use_native(
            geometry,
            roots=True,
            floor=float(floor),
            smallest_trace=self.smallest_trace,
            homogeneous=homogeneous,
        )
        self.maximum = ops.Maximum()
        self.stack = ops.Stack()

    def construct(
        self,
        x: Tensor,
        dout: Tensor,
        gate: Parameter,
        Phi_sum: Parameter,
        Psi_sum: Parameter,
        traces: Parameter,
        count: Parameter,
    ) -> bool:
        if self.native:
            self.kernel(x, dout, gate, Phi_sum, Psi_sum, traces, count)
        elif gate > 0:
            samples = float(self.samples(x))
            Phi, Psi, delta = self.partial_traces(x, dout)
            delta = self.reshape(delta, self.shape(traces)[1:]) / samples
            floored = self.maximum(delta, self.floor)
            root = self.sqrt(floored)
            scale = root / self.maximum(delta, self.smallest_trace)
            self.assign_add(Phi_sum, Phi * scale)
            self.assign_add(Psi_sum, Psi * scale)
            shift = root if self.homogeneous else floored
            self.assign_add(traces, self.stack((delta, shift)) * samples)
            self.assign_add(count, samples)
        return True
