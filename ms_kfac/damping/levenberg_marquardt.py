r"""Damping that adapts to the accuracy of the quadratic model of the loss."""

from __future__ import annotations

from functools import partial

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.values import check_count, check_number, float32_fault, shown


class LevenbergMarquardt(nn.Cell):
    r"""Levenberg-Marquardt adaptation of :math:`\lambda` to the accuracy of the quadratic model.

    Let :math:`\delta` be the step taken, h the loss and M its quadratic model. Every ``interval`` steps the
    rule computes

    .. math::
        \rho = \frac{h(\theta + \delta) - h(\theta)}{M(\delta) - M(0)}, \qquad
        M(\delta) - M(0) = \nabla h^{\top} \delta + \tfrac12 \delta^{\top} F \delta
        + \tfrac12 \lambda \|\delta\|^2

    and sets :math:`\lambda \leftarrow \omega \lambda` if :math:`\rho > 3/4`, and
    :math:`\lambda \leftarrow \lambda / \omega` if :math:`\rho < 1/4` (Martens & Grosse 2015, section 6.5).
    Their :math:`\omega_1` is :math:`(19/20)^{T_1}` for an interval :math:`T_1`. If :math:`\rho` is NaN,
    :math:`\lambda` does not change.

    Pass the object as ``damping=`` to an optimizer of this package. It requires
    :class:`ms_kfac.TrainOneStepCell` or :class:`ms_kfac.Model`, which evaluate h a second time on the same
    batch. Both evaluations are in training mode. Random layers, like dropout, draw new numbers in the second
    evaluation, which adds noise to :math:`\rho`.

    h is the loss without weight decay. Weight decay enters through :math:`\delta`, the difference of the
    weights under any update rule. M uses the blocks of the current statistics. First-order parameters have no
    curvature in M, also those that AdamW updates.

    A new :math:`\lambda` takes effect when inverses are next recomputed. So ``interval`` should not exceed
    the optimizer's ``inverse_interval``.

    Args:
        initial: :math:`\lambda` of the first steps, within [minimum, maximum]. Martens & Grosse start with a
            large value, because the rule soon lowers it.
        interval: number of steps between two comparisons. Default: 5.
        decrease: :math:`\omega` in (0, 1). Default: None, :math:`(19/20)^{interval}`.
        minimum: lower bound of :math:`\lambda`. Default: 1e-8.
        maximum: upper bound of :math:`\lambda`. Default: 1e4.

    Raises:
        TypeError: if an argument is not a number.
        ValueError: if an argument is outside its range, or float32 can't hold it.

    Inputs:
        - **step** (Tensor) - number of steps taken so far. It is ignored: the rule depends only on losses.

    Outputs:
        Tensor, scalar float32, :math:`\lambda`.

    Attributes:
        value: Parameter, scalar float32, the current :math:`\lambda`.
        predicted: Parameter, scalar float32, :math:`M(\delta) - M(0)` of the last comparison, in the units of
            the reduced loss.
        ratio: Parameter, scalar float32, :math:`\rho` of the last comparison.

    Platforms: CPU, GPU, Ascend (composed of built-in operators).

    Examples:
        >>> import ms_kfac
        >>> from mindspore import nn
        >>> net = nn.Dense(4, 2)
        >>> damping = ms_kfac.LevenbergMarquardt(1.0, interval=5)
        >>> optimizer = ms_kfac.KFAC(net, 0.1, damping=damping, inverse_interval=20)
        >>> model = ms_kfac.Model(net, nn.MSELoss(), optimizer)
    """

    # λ does not change for ratios between these two.
    _GOOD = 0.75
    _BAD = 0.25

    def __init__(
        self,
        initial: float,
        *,
        interval: int = 5,
        decrease: float | None = None,
        minimum: float = 1e-8,
        maximum: float = 1e4,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.interval = check_count("LevenbergMarquardt: interval", interval)
        if decrease is None:
            decrease = (19 / 20) ** self.interval
            if float32_fault(decrease) or decrease == 0.0:
                raise ValueError(
                    "LevenbergMarquardt: decrease must be given for long intervals, as (19/20)^interval is 0 "
                    f"in float32 with interval={shown(interval)}, got None"
                )
        positive = partial(check_number, low=0.0, low_open=True)
        self.decrease = positive("LevenbergMarquardt: decrease", decrease, high=1.0, high_open=True)
        self.maximum = positive("LevenbergMarquardt: maximum", maximum)
        self.minimum = positive("LevenbergMarquardt: minimum", minimum, high=self.maximum)
        initial = check_number("LevenbergMarquardt: initial", initial, low=self.minimum, high=self.maximum)
        self.good = self._GOOD
        self.bad = self._BAD
        self.value = Parameter(Tensor(initial, ms.float32), name="damping.value", requires_grad=False)
        self.predicted = Parameter(Tensor(0.0, ms.float32), name="damping.predicted", requires_grad=False)
        self.ratio = Parameter(Tensor(1.0, ms.float32), name="damping.ratio", requires_grad=False)
        self.assign = ops.Assign()
        self.cast = ops.Cast()

    def construct(self, step: Tensor) -> Tensor:
        return self.value

    def is_due(self, steps: Tensor) -> Tensor:
        """Whether the step that completes ``steps`` steps compares the model with the loss."""
        return steps % self.interval == 0

    def expect(self, predicted: Tensor) -> bool:
        """Store the change of the loss that the model predicts for the step just taken."""
        self.assign(self.predicted, predicted)
        return True

    def adapt(self, change: Tensor) -> bool:
        """Compare the change of the loss with the prediction, and update the damping.

        Args:
            change: h(θ + δ) − h(θ), scalar float32, in the units of the prediction.

        Returns:
            True.
        """
        ratio = change / self.predicted
        # Comparisons with NaN are false, so both masks are then 0.
        raised = self.cast(ratio < self.bad, ms.float32) * (1.0 / self.decrease - 1.0)
        lowered = self.cast(ratio > self.good, ms.float32) * (self.decrease - 1.0)
        value = ops.clamp(self.value * (1.0 + raised + lowered), self.minimum, self.maximum)
        self.assign(self.ratio, ratio)
        self.assign(self.value, value)
        return True
