r"""Damped inverses of a layer's trace-restricted factors (TKFAC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from ms_kfac.ops.graph.element import element
from ms_kfac.ops.linalg.damped_inverse import DampedInverse
from ms_kfac.ops.refresh.factored_tikhonov import SMALLEST_COUNT
from ms_kfac.ops.refresh.layer_refresh import LayerRefresh


@dataclass(frozen=True)
class TraceRestrictedDamping:
    r"""Damping options of TKFAC.

    Attributes:
        automatic: True for automatic damping from the trace, False for normal damping with :math:`\lambda`.
        nu: :math:`\nu`, the lower bound of :math:`\tilde\delta`.
        homogeneous: whether the damping is :math:`\sqrt{\tilde\delta} / \dim` instead of
            :math:`\tilde\delta / \dim`.
        expands: whether :math:`\beta` multiplies :math:`\delta`.
        roots: whether the sums are those of :math:`\sqrt\delta \Phi` and :math:`\sqrt\delta \Psi`.
    """

    automatic: bool
    nu: float
    homogeneous: bool
    expands: bool
    roots: bool


class TraceRestrictedRefresh(LayerRefresh):
    r"""Recompute TKFAC's inverses of one layer.

    .. math::
        \left(\sqrt{\tilde\delta}\, \Phi + c_\Phi I\right)^{-1}, \qquad
        \left(\sqrt{\tilde\delta}\, \Psi + c_\Psi I\right)^{-1}

    Normal damping: :math:`\tilde\delta = \delta`, :math:`c = \sqrt\lambda` (Gao et al. 2021, "A
    Trace-restricted Kronecker-Factored Approximation to Natural Gradient", equation 14). Automatic damping:
    :math:`\tilde\delta = \max(\nu, \delta)`, or :math:`\max(\nu, \beta \delta)` with ``expands``, and
    :math:`c = \tilde\delta / \dim` (equation 15), or :math:`\sqrt{\tilde\delta} / \dim` with
    ``homogeneous``. With ``roots``, the statistics also include a sum of :math:`c \dim`, which :math:`\beta`
    multiplies (equations 17 and 18). A layer without statistics gets identity matrices.

    The native kernel inverts the factors of all layers in a call in parallel. A factor that is not positive
    definite, or has no inverse, is treated as by
    :class:`ms_kfac.ops.refresh.kronecker_refresh.KroneckerRefresh`.

    Args:
        layer: the layer's name.
        arrays: the Parameters Phi_sum :math:`([g,] d_{in}, d_{in})`, Psi_sum
            :math:`([g,] d_{out}, d_{out})`, traces, weights (1), Phi_inverse, Psi_inverse and :math:`\beta`
            (scalar; not used without ``expands``, then any scalar), float32. traces is the sum of
            :math:`\delta`, scalar or :math:`(g, 1, 1)`. With ``roots``, it has a leading axis of 2, and the
            second element is the sum of :math:`c \dim`. The operator writes the inverses.
        options: damping options.

    Inputs:
        - **damping** (Tensor) - :math:`\lambda`, scalar float32. Automatic damping does not read it.

    Outputs:
        bool, True.

    Raises:
        RuntimeError: by the native kernel outside an optimizer, if a factor has no inverse.

    Platforms: CPU, GPU (native kernel, or fallback of Cholesky and CholeskySolve).
    """

    ARRAYS = ("Phi_sum", "Psi_sum", "traces", "weights", "Phi_inverse", "Psi_inverse", "beta")

    def __init__(self, layer: str, arrays: Sequence[Parameter], options: TraceRestrictedDamping) -> None:
        super().__init__(
            "trace_restricted_refresh",
            layer,
            arrays,
            automatic=int(options.automatic),
            homogeneous=int(options.homogeneous),
            expands=int(options.expands),
            roots=int(options.roots),
            nu=float(options.nu),
        )
        self.dim_Phi = arrays[0].shape[-1]
        self.dim_Psi = arrays[1].shape[-1]
        self.automatic = options.automatic
        self.nu = options.nu
        self.homogeneous = options.homogeneous
        self.expands = options.expands
        self.of_roots = options.roots
        self.damped_inverse = DampedInverse()
        self.sqrt = ops.Sqrt()
        self.maximum = ops.Maximum()
        self.cast = ops.Cast()
        self.equal = ops.Equal()
        self.assign = ops.Assign()

    def fallback(self, damping: Tensor) -> bool:
        Phi_sum, Psi_sum, traces, weights, Phi_inverse, Psi_inverse, beta = self.arrays
        count = element(weights, 0)
        unseen = self.cast(self.equal(count, 0.0), ms.float32)
        weight = self.maximum(count, SMALLEST_COUNT)
        Phi, Psi = Phi_sum / weight, Psi_sum / weight
        averages = traces / weight
        delta = averages[0] if self.of_roots else averages
        if not self.of_roots:
            root = self.sqrt(self.maximum(delta, SMALLEST_COUNT))
            Phi, Psi = Phi / root, Psi / root
        if self.automatic:
            expanded = self.maximum(delta * beta if self.expands else delta, self.nu)
            if self.expands or not self.of_roots:
                growth = self.sqrt(expanded / self.maximum(delta, SMALLEST_COUNT))
                Phi, Psi = Phi * growth, Psi * growth
            shift = self.root_shift(averages[1], beta) if self.of_roots else self.shift(expanded)
            shift_Phi, shift_Psi = shift * (1.0 / self.dim_Phi), shift * (1.0 / self.dim_Psi)
        else:
            shift_Phi = self.sqrt(damping)
            shift_Psi = shift_Phi
        # A layer without statistics has zero factors, so a damping of 1 gives identity matrices.
        self.assign(Phi_inverse, self.damped_inverse(Phi, shift_Phi + unseen * (1.0 - shift_Phi)))
        self.assign(Psi_inverse, self.damped_inverse(Psi, shift_Psi + unseen * (1.0 - shift_Psi)))
        return True

    def shift(self, expanded: Tensor) -> Tensor:
        """Damping c times the dimension."""
        return self.sqrt(expanded) if self.homogeneous else expanded

    def root_shift(self, average: Tensor, beta: Tensor) -> Tensor:
        """Damping c times the dimension, from the average over batches (``roots``)."""
        if not self.expands:
            return average
        if self.homogeneous:
            return self.maximum(average * self.sqrt(beta), self.nu**0.5)
        return self.maximum(average * beta, self.nu)
