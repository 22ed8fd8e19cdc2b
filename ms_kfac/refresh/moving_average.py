r"""The moving average of the factors, as a decay of weighted sums."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops


class MovingAverage(nn.Cell):
    r"""How much of the past a refresh keeps.

    .. math::
        F_k = \epsilon_k F_{k-1} + (1 - \epsilon_k) \hat F_k, \qquad \epsilon_k = \min(1 - 1/k, \epsilon)

    (Martens & Grosse 2015, section 5).

    The first estimate is used whole and early estimates are averaged evenly, so there is no start-up bias
    towards an identity.

    Statistics are sums S with weights n and :math:`F = S / n`. With W the weight of the past in units of one
    refresh, multiplying S, n and W by :math:`d = \min(1, \frac{\epsilon}{1 - \epsilon} / W)` before a batch
    is added gives exactly the rule above for batches of equal size: :math:`\epsilon_k = d W / (d W + 1)`.
    Batches of unequal size count by their samples.

    Args:
        decay: :math:`\epsilon` in [0, 1). 0 uses each refresh alone.
        name: prefix of the Parameter that holds W.
        statistics: None for one W; else the number of statistics with a W each.

    Inputs:
        - **due** (Tensor) - float32 of W's shape, 1 where a refresh is due and 0 where it is not.

    Outputs:
        Tensor, float32 of W's shape: the factor d to multiply sums and weights with, 1 where no refresh is
        due. Calling it counts the refreshes that are due.
    """

    # With decay 0 the past keeps this weight instead of none, so that S / n stays defined until the next
    # batch has been added; it changes a float32 factor by less than its rounding error.
    _SMALLEST_DECAY = 1e-8

    def __init__(self, decay: float, *, name: str, statistics: int | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.past_weight_limit = decay / (1.0 - decay)
        self.smallest_decay = self._SMALLEST_DECAY
        weight = np.zeros(() if statistics is None else (statistics,), np.float32)
        self.past_weight = Parameter(Tensor(weight), name=f"{name}.past_weight", requires_grad=False)
        self.assign = ops.Assign()

    def construct(self, due: Tensor) -> Tensor:
        weight = self.past_weight + due
        d = ops.clamp(self.past_weight_limit / ops.maximum(weight, 1.0), self.smallest_decay, 1.0)
        d = due * d + (1.0 - due)
        self.assign(self.past_weight, d * weight)
        return d
