r"""The moving average of the factors, as a decay of weighted sums."""

from __future__ import annotations

import mindspore as ms
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

    Outputs:
        Tensor, scalar float32: the factor d to multiply sums and weights with. Calling it counts one refresh.
    """

    # With decay 0 the past keeps this weight instead of none, so that S / n stays defined until the next
    # batch has been added; it changes a float32 factor by less than its rounding error.
    _SMALLEST_DECAY = 1e-8

    def __init__(self, decay: float, *, name: str) -> None:
        super().__init__(auto_prefix=False)
        self.past_weight_limit = decay / (1.0 - decay)
        self.smallest_decay = self._SMALLEST_DECAY
        self.past_weight = Parameter(Tensor(0.0, ms.float32), name=f"{name}.past_weight", requires_grad=False)
        self.assign = ops.Assign()

    def construct(self) -> Tensor:
        weight = self.past_weight + 1.0
        d = ops.clamp(self.past_weight_limit / weight, self.smallest_decay, 1.0)
        self.assign(self.past_weight, d * weight)
        return d
