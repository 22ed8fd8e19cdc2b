r"""Damping that follows the layers' traces, in the place of a :math:`\lambda`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindspore import Parameter, Tensor, nn, ops


@dataclass(frozen=True)
class AutomaticDamping:
    r"""The options of TKFAC's automatic damping (Gao et al. 2021, equations 15 and 16).

    Attributes:
        nu: :math:`\nu`, the lower bound of every trace :math:`\delta`.
        homogeneous: whether the diagonal is :math:`\sqrt{\tilde\delta} / \dim` in the place of the printed
            :math:`\tilde\delta / \dim`.
        max_expansion: upper bound of :math:`\beta`.
    """

    nu: float
    homogeneous: bool
    max_expansion: float


class ExpandingDamping(nn.Cell):
    r"""Writes :math:`\beta` just before inverses are recomputed, then answers with the damping.

    .. math::
        \beta = \mathrm{clip}\left(\max_l \tilde\delta_l / \delta_l,\; 1,\; \beta_{max}\right)
        = \mathrm{clip}\left(\nu / \min_l \delta_l,\; 1,\; \beta_{max}\right)

    over the convolutions l (over their groups, where they have some), which :math:`\tilde\delta_l =
    \max(\nu, \delta_l)` expands (Gao et al. 2021, equation 16). The ratio diverges as a layer's gradients
    vanish, hence the bound; a convolution whose trace is exactly zero, or that no backward pass has reached,
    has no ratio and is passed over. Without convolutions :math:`\beta = 1`.

    Args:
        damping: called with the step.
        blocks: the convolutions' blocks.
        expansion: where :math:`\beta` goes: scalar float32.
        options: :math:`\nu` and :math:`\beta_{max}`.

    Inputs:
        - **step** (Tensor) - number of steps taken so far.

    Outputs:
        Tensor, what ``damping`` answers.
    """

    def __init__(
        self, damping: nn.Cell, blocks: Sequence[Any], expansion: Parameter, options: AutomaticDamping
    ) -> None:
        super().__init__(auto_prefix=False)
        self.damping = damping
        self.blocks = nn.CellList(blocks, auto_prefix=False)
        self.expansion = expansion
        self.nu = options.nu
        self.max_expansion = options.max_expansion
        self.assign = ops.Assign()
        self.minimum = ops.Minimum()

    def construct(self, step: Tensor) -> Tensor:
        if len(self.blocks) > 0:
            smallest = self.nu
            for block in self.blocks:
                smallest = self.minimum(block.smallest_delta(self.nu), smallest)
            self.assign(self.expansion, self.minimum(self.nu / smallest, self.max_expansion))
        return self.damping(step)
