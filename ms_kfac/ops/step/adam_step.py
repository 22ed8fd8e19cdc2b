r"""Apply AdamW's step to some of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.ops.graph.assign_cast import assign_cast

_step = ops.MultitypeFuncGraph("adam_step")


@_step.register(
    *("Function", "Tuple", "Tensor", "Tensor", "Bool", "Bool", "Bool", "Bool"),
    *("Tensor", "Tensor", "Tensor", "Tensor"),
)
def _adam_step(
    apply: Any,
    numbers: tuple[Tensor, ...],
    group_rate: Tensor,
    group_decay: Tensor,
    updated: bool,
    rate_of_group: bool,
    decayed: bool,
    decay_of_group: bool,
    weight: Parameter,
    m: Parameter,
    v: Parameter,
    gradient: Tensor,
) -> bool:
    if updated:
        beta1, beta2, eps, rate, decay, growth = numbers
        if rate_of_group:
            rate = group_rate * growth
        if not decayed:
            decay = beta1 * 0.0
        elif decay_of_group:
            decay = group_decay / growth
        if weight.dtype == ms.float32:
            gradient = ops.cast(gradient, ms.float32)
            return ops.depend(True, apply(weight, m, v, rate, beta1, beta2, eps, decay, gradient))
        # MindSpore's kernel has no bfloat16, and not on all devices float32 moments of a float16 weight.
        value, gradient = ops.cast(weight, ms.float32), ops.cast(gradient, ms.float32)
        first = m * beta1 + gradient * (1.0 - beta1)
        second = v * beta2 + gradient * gradient * (1.0 - beta2)
        value = value - rate * (first / (ops.sqrt(second) + eps) + decay * value)
        return ops.depend(True, (ops.assign(m, first), ops.assign(v, second), assign_cast(weight, value)))
    return True


class AdamStep(nn.Cell):
    r"""AdamW with bias correction, in place.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        w &\leftarrow w - \eta \left(\frac{m / c_1}{\sqrt{v / c_2} + \epsilon} + w_d w\right), \qquad
        c_i = 1 - \beta_i^t

    (Kingma & Ba 2015; Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".) MindSpore's kernel
    ``ops.AdamWeightDecay`` has no bias correction. It gets :math:`\eta \sqrt{c_2} / c_1`,
    :math:`\epsilon \sqrt{c_2}` and :math:`w_d c_1 / \sqrt{c_2}` instead of :math:`\eta`, :math:`\epsilon` and
    :math:`w_d`, which gives this step exactly.

    Moments are float32 whatever the type of the weight.

    Args:
        weights: the parameters of the optimizer.
        updated: for each of them, whether this step applies to it.
        decayed: for each, whether weight decay applies.
        group_rates: for each, whether its learning rate is that of its parameter group.
        group_decays: for each, whether its weight decay is that of its parameter group.
        beta1: :math:`\beta_1`.
        beta2: :math:`\beta_2`.
        eps: :math:`\epsilon`.
        maps_rates: whether the groups' learning rates come as a tuple.
        maps_decays: whether the groups' weight decays come as a tuple. A tuple of rates requires it.
        name: prefix of the names of its Parameters.

    Inputs:
        - **rate** (Tensor) - :math:`\eta` of parameters whose group sets none, scalar float32.
        - **decay** (Tensor) - :math:`w_d` of parameters whose group sets none, scalar float32.
        - **rates** (Union[Tensor, tuple[Tensor]]) - the groups' learning rates, one per weight; any scalar if
          no group sets one.
        - **decays** (Union[Tensor, tuple[Tensor]]) - the same of weight decays.
        - **gradients** (tuple[Tensor]) - g, one per weight.

    Outputs:
        bool, True.

    Platforms: CPU, GPU, Ascend (MindSpore's AdamWeightDecay; composed of MindSpore operators for weights that
    are not float32).
    """

    def __init__(
        self,
        weights: Sequence[Parameter],
        updated: Sequence[bool],
        decayed: Sequence[bool],
        group_rates: Sequence[bool],
        group_decays: Sequence[bool],
        *,
        beta1: float,
        beta2: float,
        eps: float,
        maps_rates: bool,
        maps_decays: bool,
        name: str,
    ) -> None:
        super().__init__(auto_prefix=False)
        m, v = (_moments(weights, updated, f"{name}.{letter}") for letter in "mv")
        self.moments = ParameterTuple([*m.values(), *v.values()])
        # One map over all parameters compiles in a fraction of the time that a selection of some takes. A
        # weight stands in for the moments that it doesn't have. Not in the Cell's registry, whose keys are
        # the network's names and could be those of attributes.
        self.__dict__["weights"] = ParameterTuple(weights)
        for letter, own in (("m", m), ("v", v)):
            self.__dict__[letter] = ParameterTuple([own.get(i, w) for i, w in enumerate(weights)])
        # c: the moments of a gradient that is always 1. Unlike 1 - beta^t, they lose no digits at small t.
        self.corrections = Parameter(
            Tensor(np.zeros(2, np.float32)), name=f"{name}.corrections", requires_grad=False
        )
        betas = np.array([beta1, beta2], np.float32)
        self.betas = Tensor(betas)
        self.complements = Tensor(np.float32(1.0) - betas)
        self.beta1, self.beta2 = Tensor(beta1, ms.float32), Tensor(beta2, ms.float32)
        self.eps = Tensor(eps, ms.float32)
        self.updated = tuple(updated)
        self.decayed = tuple(decayed)
        self.group_rates = tuple(group_rates)
        self.group_decays = tuple(group_decays)
        self.maps_rates = maps_rates
        self.maps_decays = maps_decays
        self.apply = ops.AdamWeightDecay()
        self.unstack = ops.Unstack()
        self.hyper_map = ops.HyperMap()

    def construct(self, rate: Tensor, decay: Tensor, rates: Any, decays: Any, gradients: Any) -> bool:
        corrections = self.corrections * self.betas + self.complements
        first, second = self.unstack(corrections)
        root = ops.sqrt(second)
        growth = root / first
        numbers = (self.beta1, self.beta2, self.eps * root, rate * growth, decay / growth, growth)
        flags = (self.updated, self.group_rates, self.decayed, self.group_decays)
        state = (self.weights, self.m, self.v, gradients)
        # A partial function of a partial function does not compile.
        if self.maps_rates:
            self.hyper_map(ops.partial(_step, self.apply, numbers), rates, decays, *flags, *state)
        elif self.maps_decays:
            self.hyper_map(ops.partial(_step, self.apply, numbers, rates), decays, *flags, *state)
        else:
            self.hyper_map(ops.partial(_step, self.apply, numbers, rates, decays), *flags, *state)
        ops.assign(self.corrections, corrections)
        return True


def _moments(weights: Sequence[Parameter], updated: Sequence[bool], name: str) -> dict[int, Parameter]:
    """Moments of the weights that are updated, by their index."""
    return {
        index: Parameter(
            Tensor(np.zeros(weight.shape, np.float32)), name=f"{name}.{weight.name}", requires_grad=False
        )
        for index, (weight, flag) in enumerate(zip(weights, updated))
        if flag
    }
