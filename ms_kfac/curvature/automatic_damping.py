r"""Damping derived from the layers' traces, instead of from :math:`\lambda`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.values import check_flag, check_number


@dataclass(frozen=True)
class AutomaticDamping:
    r"""Options of TKFAC's automatic damping (Gao et al. 2021, equations 15 and 16).

    Attributes:
        nu: :math:`\nu`, the lower bound of every trace :math:`\delta`.
        homogeneous: whether the damping added to the diagonal is :math:`\sqrt{\tilde\delta} / \dim`, instead
            of the printed :math:`\tilde\delta / \dim`.
        max_expansion: :math:`\beta_{max}`, the upper bound of :math:`\beta`.
    """

    nu: float
    homogeneous: bool
    max_expansion: float

    def __post_init__(self) -> None:
        """Check the options as TKFAC's constructor does.

        Raises:
            TypeError: if an option has the wrong type.
            ValueError: if a number is outside its range.
        """
        check_number("nu", self.nu, low=0.0, low_open=True)
        check_flag("homogeneous", self.homogeneous)
        check_number("max_expansion", self.max_expansion, low=1.0)


class ExpandingDamping(nn.Cell):
    r"""Update :math:`\beta` from the current statistics, then return the damping.

    .. math::
        \beta = \mathrm{clip}\left(\max_l \tilde\delta_l / \delta_l,\; 1,\; \beta_{max}\right)
        = \mathrm{clip}\left(\nu / \min_l \delta_l,\; 1,\; \beta_{max}\right)

    The index l runs over the convolutions, and over each group of a grouped convolution. Here
    :math:`\tilde\delta_l = \max(\nu, \delta_l)` is the expanded trace (Gao et al. 2021, equation 16). The
    ratio diverges as a layer's gradients vanish, hence the upper bound. A convolution has no ratio, and is
    skipped, if its trace is exactly zero or no backward pass has reached it. Without convolutions,
    :math:`\beta = 1`. An inverse schedule calls this Cell before every refresh, and possibly in other steps.

    Args:
        damping: Cell that maps the step to the damping.
        blocks: the convolutions' blocks.
        expansion: Parameter that receives :math:`\beta`, scalar float32.
        options: :math:`\nu` and :math:`\beta_{max}`.

    Inputs:
        - **step** (Tensor) - number of steps taken so far.

    Outputs:
        Tensor, the output of ``damping``.
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
