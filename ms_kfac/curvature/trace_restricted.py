r"""TKFAC's block: :math:`F \approx \delta\, \Phi \otimes \Psi`, with factors of trace one and a scale.

For per-sample :math:`\Lambda = a a^{\top}` and :math:`\Gamma = g g^{\top}`,

.. math::
    \delta = E[\mathrm{tr}\Lambda\, \mathrm{tr}\Gamma], \qquad
    \Phi = \frac{E[\mathrm{tr}(\Gamma)\, \Lambda]}{\delta}, \qquad
    \Psi = \frac{E[\mathrm{tr}(\Lambda)\, \Gamma]}{\delta}

(Gao et al. 2021, "A Trace-restricted Kronecker-Factored Approximation to Natural Gradient", equation 8; for
convolutions theorem 3, corrected: see :mod:`ms_kfac.ops.statistics.trace_restricted_statistics`).
:math:`\Phi` and :math:`\Psi` have trace one. So the trace of the block is :math:`\delta`, the trace of the
exact block. The damped inverse acts as

.. math::
    U = \left(\sqrt{\tilde\delta}\, \Psi + c_\Psi I\right)^{-1} dW
        \left(\sqrt{\tilde\delta}\, \Phi + c_\Phi I\right)^{-1}
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.automatic_damping import AutomaticDamping
from ms_kfac.curvature.block import CurvatureBlock, layer_statistics
from ms_kfac.ops.graph.flat_buffer import SyncedTensor
from ms_kfac.ops.refresh.trace_restricted_refresh import TraceRestrictedDamping, TraceRestrictedRefresh
from ms_kfac.ops.statistics.layer_statistics import EVERYTHING, StatisticsOptions
from ms_kfac.ops.statistics.trace_restricted_statistics import TraceRestrictedStatistics
from ms_kfac.ops.step.kronecker_precondition import KroneckerForm
from ms_kfac.values import shown


class TraceRestrictedBlock(CurvatureBlock):
    r"""Trace-restricted Kronecker-factored Fisher block of a dense layer or a convolution.

    The moving averages are of the partial traces :math:`E[\mathrm{tr}(\Gamma) \Lambda]`,
    :math:`E[\mathrm{tr}(\Lambda) \Gamma]` and of :math:`\delta`, and are normalised at inversion. So the
    average preserves the trace too.

    Normal damping: :math:`\tilde\delta = \delta`, :math:`c_\Phi = c_\Psi = \sqrt\lambda` (equation 14). There
    is no :math:`\pi` because the two factors have the same trace.

    Automatic damping: :math:`c_\Phi = \tilde\delta / \dim\Phi`, :math:`c_\Psi = \tilde\delta / \dim\Psi`
    (equation 15). The homogeneous form has :math:`\sqrt{\tilde\delta}` over the dimension instead. Its
    damping equals the mean of the factor's diagonal for every :math:`\tilde\delta`. In the printed form, the
    damping is :math:`\sqrt{\tilde\delta}` times that mean. :math:`\lambda` is not used.

    Convolutions have :math:`\tilde\delta = \max(\nu, \delta)`, other layers
    :math:`\tilde\delta = \max(\nu, \beta\delta)`. For other layers the paper has :math:`\beta\delta`, and
    remarks that their traces exceed :math:`\nu`. Both forms are equal in that case. Otherwise the printed
    damping would vanish together with the trace, so :math:`\nu` bounds it as for convolutions.

    A grouped convolution has one :math:`(\Phi, \Psi, \delta)` per group, along a leading axis of every
    Parameter except the weights.

    Args:
        layer: the layer.
        prefix: prefix of the Parameters' names.
        options: how a batch enters the statistics.
        automatic: options of the automatic damping; None for normal damping. Default: None.
        expansion: :math:`\beta`, scalar float32, shared by all layers that are not convolutions. Read only
            with automatic damping. Default: None.
        period: number of backward passes per batch: the optimizer's ``accumulation_steps``. Default: 1.

    Note:
        Until a backward pass has reached the layer, its inverses are identities and its gradient passes
        through unchanged.
    """

    kind = "trace-restricted"
    # Whether averages are of roots of the block. If so, delta_sum also holds the averaged damping.
    sums_roots = False

    def __init__(
        self,
        layer: Layer,
        *,
        prefix: str,
        options: StatisticsOptions,
        automatic: AutomaticDamping | None = None,
        expansion: Parameter | None = None,
        period: int = 1,
    ) -> None:
        if automatic is not None and not isinstance(automatic, AutomaticDamping):
            raise TypeError(f"automatic must be an AutomaticDamping or None, got {shown(automatic)}")
        super().__init__(layer, prefix=prefix)
        self.dim_Phi = layer.input_dimension
        self.dim_Psi = layer.output_dimension
        self.follows_trace = automatic is not None
        if self.follows_trace:
            self.read_by_all_reason = (
                "automatic damping of every layer depends on the traces of all convolutions"
            )
        self.nu = 0.0 if automatic is None else automatic.nu
        self.homogeneous = automatic is not None and automatic.homogeneous
        self.expands = automatic is not None and layer.kind != "convolution"
        if self.expands and not isinstance(expansion, Parameter):
            raise TypeError(
                "expansion must be a Parameter with automatic damping of a layer that is not a convolution, "
                f"got {shown(expansion)}"
            )
        self.expansion = expansion if self.expands else None
        self.operator = layer_statistics(TraceRestrictedStatistics, layer.operators, options)
        for name, dim in (("Phi", self.dim_Phi), ("Psi", self.dim_Psi)):
            shape = (*self.leading, dim, dim)
            self.add_statistic(name, shape, weight=0, gate=EVERYTHING, power=2, symmetric=True)
        traces = (self.groups, 1, 1) if self.groups > 1 else ()
        self.add_statistic("delta", traces, weight=0, gate=EVERYTHING, power=2)
        self.create_weights(1, period)
        self.staged = (self.Phi_batch, self.Psi_batch, self.delta_batch, self.record)
        self.Phi_inverse = self.matrix_parameter("Phi_inverse", np.eye(self.dim_Phi))
        self.Psi_inverse = self.matrix_parameter("Psi_inverse", np.eye(self.dim_Psi))
        self.layer_refresh = self.refresh_operator()
        self.matmul = ops.MatMul() if self.groups == 1 else ops.BatchMatMul()
        self.sqrt = ops.Sqrt()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.sum_all = ops.ReduceSum()
        self.min_all = ops.ReduceMin()

    def refresh_operator(self) -> TraceRestrictedRefresh:
        """Create the operator that recomputes the inverses from the averages."""
        sums = (self.Phi_sum, self.Psi_sum, self.delta_sum, self.weights)
        inverses = (self.Phi_inverse, self.Psi_inverse)
        # The operator needs an array for β even if the layer has no expansion; its value is unused.
        beta = self.expansion if self.expands else self.weights
        options = TraceRestrictedDamping(
            automatic=self.follows_trace,
            nu=self.nu,
            homogeneous=self.homogeneous,
            expands=self.expands,
            roots=self.sums_roots,
        )
        return TraceRestrictedRefresh(self.layer_name, (*sums, *inverses, beta), options)

    def delta(self) -> Tensor:
        r""":math:`\delta`: scalar, or :math:`(g, 1, 1)` for g groups."""
        return self.estimate(self.delta_sum, 0)

    def smallest_delta(self, otherwise: float) -> Tensor:
        """Smallest trace over the groups, scalar; a trace of zero counts as ``otherwise``."""
        delta = self.delta()
        return self.min_all(delta + self.cast(self.equal(delta, 0.0), ms.float32) * otherwise)

    def root_factors(self) -> tuple[Tensor, Tensor]:
        r""":math:`\sqrt\delta\, \Phi` and :math:`\sqrt\delta\, \Psi`; zeros if :math:`\delta` is zero."""
        root = self.sqrt(self.maximum(self.delta(), self.smallest_count))
        return self.estimate(self.Phi_sum, 0) / root, self.estimate(self.Psi_sum, 0) / root

    def tensors_to_broadcast(self) -> tuple[SyncedTensor, ...]:
        return SyncedTensor(self.Phi_inverse, symmetric=True), SyncedTensor(self.Psi_inverse, symmetric=True)

    def precondition(self, matrix: Tensor) -> Tensor:
        return self.matmul(self.matmul(self.Psi_inverse, matrix), self.Phi_inverse)

    def native_precondition(self) -> KroneckerForm:
        return KroneckerForm((self.Psi_inverse,), (self.Phi_inverse,))

    def multiply(self, matrix: Tensor) -> Tensor:
        Phi, Psi = self.root_factors()
        return self.matmul(self.matmul(Psi, matrix), Phi)

    def trace(self) -> Tensor:
        return self.sum_all(self.delta())

    def current_estimate(self, group: int) -> tuple[Tensor, ...]:
        return self.root_factors()

    def factors(self) -> dict[str, NDArray[np.float32]]:
        count = float(self.weights.asnumpy()[0])
        delta_sum = self.delta_sum.asnumpy()
        delta = delta_sum.reshape(-1) if self.groups > 1 else delta_sum
        present = np.where(delta_sum > 0, delta_sum, np.float32(1.0))
        return {
            "Phi": self.Phi_sum.asnumpy() / present,
            "Psi": self.Psi_sum.asnumpy() / present,
            "delta": np.asarray(delta / count if count > 0 else delta.copy(), np.float32),
        }

    def dimensions(self) -> str:
        groups = f"{self.groups} x " if self.groups > 1 else ""
        return f"{groups}Phi {self.dim_Phi}, Psi {self.dim_Psi}"
