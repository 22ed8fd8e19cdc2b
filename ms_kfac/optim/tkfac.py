r"""TKFAC: natural gradient with Kronecker factors that preserve the trace of the Fisher."""

from __future__ import annotations

from functools import partial
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn

from ms_kfac.curvature.automatic_damping import AutomaticDamping, ExpandingDamping
from ms_kfac.curvature.trace_restricted import TraceRestrictedBlock
from ms_kfac.curvature.trace_restricted_roots import TraceRestrictedRootsBlock
from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.optim.block_choice import Blocks, with_default
from ms_kfac.optim.options import check_options, refuse_option
from ms_kfac.optim.parameter_names import prefix_names


class TKFAC(SecondOrderOptimizer):
    r"""Trace-restricted K-FAC for dense layers and convolutions, as an ``nn.Optimizer``.

    The step equals the step of :class:`ms_kfac.KFAC` except for the preconditioner:

    .. math::
        U_l = \left(\sqrt{\tilde\delta_l}\, \Psi_l + c_{\Psi,l} I\right)^{-1} dW_l
              \left(\sqrt{\tilde\delta_l}\, \Phi_l + c_{\Phi,l} I\right)^{-1}

    with :math:`\Phi_l = E[\lVert g \rVert^2 a a^{\top}] / \delta_l`, :math:`\Psi_l = E[\lVert a \rVert^2 g
    g^{\top}] / \delta_l` and :math:`\delta_l = E[\lVert a \rVert^2 \lVert g \rVert^2]`, which is the trace
    of the layer's exact Fisher block (Gao et al. 2021, "A Trace-restricted Kronecker-Factored Approximation
    to Natural Gradient", equation 8). Convolutions use sums over locations, as theorem 2 derives them. Where
    equation (12) of the paper contradicts that theorem, this class follows the theorem.

    ``damping_mode="normal"`` (the paper's TKFAC_nor): :math:`\tilde\delta_l = \delta_l` and
    :math:`c_\Phi = c_\Psi = \sqrt\lambda` (equation 14).

    ``damping_mode="automatic"`` (TKFAC_new): :math:`\lambda` (``damping``) is not used. Convolutions
    have :math:`\tilde\delta_l = \max(\nu, \delta_l)`, other layers :math:`\tilde\delta_l = \max(\nu, \beta
    \delta_l)` with :math:`\beta = \max_l \tilde\delta_l / \delta_l` over the convolutions (equations 15 and
    16). The outer maximum only matters for a layer whose trace is below :math:`\nu`, for which the paper
    gives no rule. The diagonals are :math:`c_\Phi = \tilde\delta / \dim\Phi` and :math:`c_\Psi =
    \tilde\delta / \dim\Psi`. A network without convolutions has :math:`\beta = 1`.

    Args:
        network: the network to train.
        learning_rate: as in :class:`ms_kfac.KFAC`.
        damping_mode: "normal" or "automatic". Default: "normal".
        nu: :math:`\nu` of the automatic damping, positive. The paper searched 1e-4 to 10 and asks for a
            "reasonably large" value. Take the default of 1 and a layer whose trace is at or below
            :math:`\nu`: its diagonal equals the mean of its factor's diagonal. Damping then equals curvature,
            in both the printed and the homogeneous form. Default: 1.0.
        ema: the averaged quantities. "partial_trace" averages :math:`E[\lVert g \rVert^2 a a^{\top}]`,
            :math:`E[\lVert a \rVert^2 g g^{\top}]` and :math:`\delta`, and normalizes at inversion. This
            preserves the equality of traces, and micro-batches add up. "paper" averages
            :math:`\sqrt{\tilde\delta}\, \Phi` and :math:`\sqrt{\tilde\delta}\, \Psi` of each batch, and the
            diagonals (equations 17 and 18). This does neither exactly. Default: "partial_trace".
        automatic_form: "printed" for the diagonals above, whose ratio to the mean of the factor's diagonal is
            :math:`\sqrt{\tilde\delta}`, or "homogeneous" for :math:`\sqrt{\tilde\delta} / \dim`, whose ratio
            is one. Default: "printed".
        max_expansion: upper bound of :math:`\beta`, at least 1. :math:`\beta` diverges as a convolution's
            gradients vanish. In the printed form, this scales the step of dense layers in directions without
            curvature by :math:`\beta^{-2}`. Default: 100.0.
        blocks: as in :class:`ms_kfac.KFAC`. Default: None, this method's block for dense layers and
            convolutions.
        **options: the other options of :class:`ms_kfac.KFAC`, except ``damping_split``.

    Attributes:
        expansion: :math:`\beta` of the latest statistics, scalar float32; on several devices, of those at the
            last refresh of inverses. None with normal damping.

    Inputs:
        - **gradients** (tuple[Tensor]) - gradients of the scaled loss with respect to ``parameters``.

    Outputs:
        bool, True.

    Raises:
        TypeError: if ``network`` is not a Cell, or an option has the wrong type.
        ValueError: if an option is outside its range.

    Note:
        :meth:`factors` returns "Phi" and "Psi", each of trace one, and "delta" (one per group for grouped
        convolutions).

    Platforms: CPU, GPU (native kernels or the fallback).

    Examples:
        >>> import mindspore as ms
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16, activation="relu"), nn.Dense(16, 4))
        >>> optimizer = ms_kfac.TKFAC(net, learning_rate=0.1, damping=0.03)
        >>> model = ms.Model(net, nn.CrossEntropyLoss(), optimizer)
    """

    method = "tkfac"

    def __init__(
        self,
        network: nn.Cell,
        learning_rate: Any,
        *positional: Any,
        damping_mode: str = "normal",
        nu: float = 1.0,
        ema: str = "partial_trace",
        automatic_form: str = "printed",
        max_expansion: float = 100.0,
        blocks: Blocks | None = None,
        **options: Any,
    ) -> None:
        refuse_option(options, "damping_split", "TKFAC damps its factors as damping_mode says")
        damping_mode, nu, ema, automatic_form, max_expansion = check_options(
            "tkfac",
            damping_mode=damping_mode,
            nu=nu,
            ema=ema,
            automatic_form=automatic_form,
            max_expansion=max_expansion,
        )
        if damping_mode == "automatic" and isinstance(options.get("damping"), LevenbergMarquardt):
            raise ValueError(
                "damping must be a number or a schedule with damping_mode='automatic', which damps dense "
                "layers and convolutions without it, got LevenbergMarquardt"
            )
        automatic, expansion = None, None
        if damping_mode == "automatic":
            automatic = AutomaticDamping(nu, automatic_form == "homogeneous", max_expansion)
            expansion = Parameter(Tensor(1.0, ms.float32), name="expansion", requires_grad=False)
        kind = TraceRestrictedRootsBlock if ema == "paper" else TraceRestrictedBlock
        block = partial(kind, automatic=automatic, expansion=expansion)
        super().__init__(network, learning_rate, *positional, blocks=with_default(block, blocks), **options)
        self._own = f"damping {damping_mode}, average {ema!r}"
        self.expansion = expansion
        if automatic is not None and expansion is not None:
            prefix_names([expansion], self.prefix)
            self._own = f"damping automatic ({automatic_form}, nu {nu:g}, lambda not used), average {ema!r}"
            convolutions = [
                block
                for block, layer in zip(self.blocks, self._layers)
                if layer.kind == "convolution" and isinstance(block, TraceRestrictedBlock)
            ]
            self.inverse_schedule.damping = ExpandingDamping(self.damping, convolutions, expansion, automatic)

    def _described(self, preconditioned: int) -> str:
        return f"{super()._described(preconditioned)[:-1]}, {self._own})"
