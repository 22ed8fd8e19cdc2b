r"""TKFAC's block with the moving average of its paper, over roots of the block.

Gao et al. 2021 average the damped factors of each batch (equations 17 and 18). The average does not change a
constant :math:`\lambda`. So it is equivalent to average :math:`\sqrt{\delta_b}\, \Phi_b` and
:math:`\sqrt{\delta_b}\, \Psi_b`, and to add the damping at inversion. This also lets :math:`\lambda` follow a
schedule without delay.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.curvature.trace_restricted import TraceRestrictedBlock
from ms_kfac.statistics.commit import RootAverage


class TraceRestrictedRootsBlock(TraceRestrictedBlock):
    r"""Trace-restricted block with the moving average of equations (17) and (18).

    A batch enters with the root of its trace, so the trace of the block is
    :math:`\overline{\sqrt{\delta_b}}^2`. It is at most :math:`\overline{\delta_b}`, the trace of the exact
    block. :class:`ms_kfac.curvature.trace_restricted.TraceRestrictedBlock` preserves the exact trace.

    With automatic damping, a convolution averages :math:`\sqrt{\tilde\delta_b}\, \Phi_b`,
    :math:`\sqrt{\tilde\delta_b}\, \Psi_b` and the damping, with :math:`\tilde\delta_b = \max(\nu, \delta_b)`
    of each batch. So :meth:`factors`, :meth:`multiply` and :meth:`trace` contain :math:`\tilde\delta` instead
    of :math:`\delta`.

    Other layers average with :math:`\delta_b`, and :math:`\beta` multiplies the averages at inversion.
    :math:`\beta` is known only after the statistics of all layers, and uses the convolutions' averaged
    :math:`\delta_b`.

    Args:
        layer: the layer.
        **options: arguments of the base class.
    """

    kind = "trace-restricted roots"
    sums_roots = True
    not_additive_reason = (
        "with ema='paper' a batch enters with the root of its trace, and roots of several ranks can't be "
        "summed; ema='partial_trace' supports several ranks"
    )

    def __init__(self, layer: Layer, **options: Any) -> None:
        super().__init__(layer, **options)
        # A layer with expansion has no floor here: β and ν enter at inversion.
        self.roots = RootAverage(0.0 if self.expands else self.nu, self.homogeneous)
        self.sum_diagonal = ops.ReduceSum(keep_dims=self.groups > 1)
        self.eye = ops.Eye()

    def averaged_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *shape) if name == "delta" else shape

    def delta(self) -> Tensor:
        # A primitive: delta_sum[0] is a view, which a compiled step may read before a kernel writes.
        shape = self.delta_sum.shape
        first = self.slice(self.delta_sum, (0,) * len(shape), (1, *shape[1:]))
        return self.estimate(self.reshape(first, shape[1:]), 0)

    def root_factors(self) -> tuple[Tensor, Tensor]:
        return self.estimate(self.Phi_sum, 0), self.estimate(self.Psi_sum, 0)

    def trace(self) -> Tensor:
        Phi, Psi = self.root_factors()
        eye_Phi = self.eye(self.dim_Phi, self.dim_Phi, ms.float32)
        eye_Psi = self.eye(self.dim_Psi, self.dim_Psi, ms.float32)
        trace_Phi = self.sum_diagonal(Phi * eye_Phi, (-2, -1))
        return self.sum_all(trace_Phi * self.sum_diagonal(Psi * eye_Psi, (-2, -1)))

    def factors(self) -> dict[str, NDArray[np.float32]]:
        r""":math:`\Phi` and :math:`\Psi` of trace one, and the product of the averaged roots' traces."""
        count = float(self.weights.asnumpy()[0])
        found = {}
        delta = np.ones((), np.float32)
        for name, parameter in (("Phi", self.Phi_sum), ("Psi", self.Psi_sum)):
            root = parameter.asnumpy() / (count if count > 0 else 1.0)
            trace = np.trace(root, axis1=-2, axis2=-1)
            found[name] = root / np.where(trace > 0, trace, np.float32(1.0))[..., None, None]
            delta = delta * trace
        found["delta"] = np.asarray(delta, np.float32)
        return found
