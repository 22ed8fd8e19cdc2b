r"""The trust region that bounds how far a step moves the model's predictions."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from ms_kfac.ops.step.number_schedule import PositiveNumbers, positive_schedule


class KLClip(nn.Cell):
    r"""Scale that keeps the step's squared Fisher norm below :math:`\kappa`.

    .. math::
        \nu = \min\left(1, \sqrt{\frac{\kappa}{\sum_l \eta_l^2 \langle dW_l, U_l \rangle}}\right)

    where :math:`\langle dW, U \rangle = U^{\top} F U` for U = F^{-1} dW (Ba, Grosse & Martens 2017,
    "Distributed Second-Order Optimization using Kronecker-Factored Approximations", section 5). Half of the
    sum is the KL divergence of the step to second order.

    Args:
        kl_clip: :math:`\kappa`, positive, or one per step, as for the damping.

    Raises:
        TypeError: if ``kl_clip`` has another type.
        ValueError: if a number is not positive and finite in float32, or there is none.

    Inputs:
        - **products** (Tensor) - :math:`\langle dW_l, U_l \rangle` of each preconditioned parameter,
          float32, shape :math:`(k,)`.
        - **rates** (Tensor) - :math:`\eta_l` in the same shape, or their common value as a scalar.
        - **step** (Tensor) - number of steps taken so far, int32, shape (1,).

    Outputs:
        Tensor, scalar float32, in (0, 1].
    """

    _SMALLEST_SUM = 1e-30

    def __init__(self, kl_clip: PositiveNumbers) -> None:
        super().__init__(auto_prefix=False)
        self.kl_clip = positive_schedule("kl_clip", kl_clip)
        self.smallest = self._SMALLEST_SUM
        self.reduce_sum = ops.ReduceSum()
        self.square = ops.Square()
        self.sqrt = ops.Sqrt()
        self.maximum = ops.Maximum()
        self.minimum = ops.Minimum()

    def construct(self, products: Tensor, rates: Tensor, step: Tensor) -> Tensor:
        total = self.reduce_sum(products * self.square(rates))
        return self.minimum(self.sqrt(self.kl_clip(step) / self.maximum(total, self.smallest)), 1.0)
