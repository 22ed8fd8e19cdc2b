r"""Settings of AdamW for the parameters that have no curvature block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ms_kfac.optim.options import check_learning_rate, check_weight_decay
from ms_kfac.values import check_number, shown

MOMENTUM = "momentum"
ADAM = "adam"


@dataclass(frozen=True, init=False, repr=False)
class AdamW:
    r"""AdamW for the parameters without a curvature block: a value of the option ``first_order``.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        w &\leftarrow w - \eta \left(\frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
        + w_d w\right)

    (Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization"; Loshchilov & Hutter 2019, "Decoupled
    Weight Decay Regularization".) t counts the steps of this rule. This class holds settings; it is no
    optimizer.

    The optimizer's own ``learning_rate``, ``momentum``, ``weight_decay`` and ``kl_clip`` do not apply to
    these parameters. A parameter group that sets "lr" or "weight_decay" takes precedence over the settings
    here. As in ``mindspore.nn.AdamWeightDecay``, parameters with "beta" or "gamma" in their names are not
    decayed unless parameter groups are given. ``mindspore.nn.AdamWeightDecay`` has no bias correction.

    Args:
        learning_rate: :math:`\eta`: float, iterable, Tensor or LearningRateSchedule, as the learning rate of
            the optimizer. Default: 1e-3.
        beta1: :math:`\beta_1` in [0, 1). Default: 0.9.
        beta2: :math:`\beta_2` in [0, 1). Default: 0.999.
        eps: :math:`\epsilon`, positive. Default: 1e-8.
        weight_decay: :math:`w_d`, a non-negative number or a Cell called with the step. Default: 0.0.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is outside its range.

    Examples:
        >>> from mindspore import nn
        >>> import ms_kfac
        >>> net = nn.SequentialCell(nn.Dense(8, 16), nn.LayerNorm((16,)), nn.Dense(16, 4))
        >>> adam = ms_kfac.AdamW(learning_rate=2e-3, weight_decay=0.01)
        >>> optimizer = ms_kfac.KFAC(net, learning_rate=0.03, first_order=adam)
    """

    learning_rate: Any
    beta1: float
    beta2: float
    eps: float
    weight_decay: Any

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: Any = 0.0,
    ) -> None:
        checked = {
            "learning_rate": check_learning_rate(learning_rate, "AdamW: learning_rate"),
            "beta1": check_number("AdamW: beta1", beta1, low=0.0, high=1.0, high_open=True),
            "beta2": check_number("AdamW: beta2", beta2, low=0.0, high=1.0, high_open=True),
            "eps": check_number("AdamW: eps", eps, low=0.0, low_open=True),
            "weight_decay": check_weight_decay(weight_decay, "AdamW: weight_decay"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"AdamW({', '.join(f'{name}={_shown(value)}' for name, value in vars(self).items())})"


def first_order_rule(value: Any) -> AdamW | None:
    """Check the option ``first_order``.

    Args:
        value: "momentum", "adam" or settings of AdamW.

    Returns:
        The settings; None for momentum.

    Raises:
        TypeError: if it is neither a string nor settings.
        ValueError: if it is another string.
    """
    accepted = "first_order must be 'momentum', 'adam' or an ms_kfac.AdamW"
    if isinstance(value, AdamW):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{accepted}, got {shown(value)}")
    if value not in (MOMENTUM, ADAM):
        raise ValueError(f"{accepted}, got {shown(value)}")
    return AdamW() if value == ADAM else None


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else type(value).__name__
