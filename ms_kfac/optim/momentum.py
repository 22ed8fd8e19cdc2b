"""The rule that turns updates into weights: ``nn.Momentum``'s weight decay, momentum and learning rate."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

_momentum_step = ops.MultitypeFuncGraph("momentum_step")
_nesterov_step = ops.MultitypeFuncGraph("nesterov_step")
_shrink = ops.MultitypeFuncGraph("shrink")


@_momentum_step.register("Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _apply_momentum(
    apply: Any,
    momentum: Tensor,
    learning_rate: Tensor,
    update: Tensor,
    parameter: Parameter,
    moment: Parameter,
) -> bool:
    return ops.depend(True, apply(parameter, moment, learning_rate, update, momentum))


@_nesterov_step.register("Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _apply_nesterov(
    momentum: Tensor, learning_rate: Tensor, update: Tensor, parameter: Parameter, moment: Parameter
) -> bool:
    # Spelled out: ApplyMomentum's CPU kernel in MindSpore 2.10 takes use_nesterov and ignores it.
    velocity = moment * momentum + update
    step = learning_rate * (update + momentum * velocity)
    written = ops.assign(moment, velocity), ops.assign(parameter, parameter - step)
    return ops.depend(True, written)


@_shrink.register("Tensor", "Tensor", "Bool", "Tensor")
def _shrink_parameter(learning_rate: Tensor, decay: Tensor, flag: bool, parameter: Parameter) -> bool:
    if flag:
        return ops.depend(True, ops.assign(parameter, parameter * (1.0 - learning_rate * decay)))
    return True


class MomentumOptimizer(nn.Optimizer):
    r"""Heavy ball or Nesterov's momentum on updates u, with coupled or decoupled weight decay.

    .. math::
        v \leftarrow \mu v + u + w_d w, \qquad w \leftarrow w - \eta v

    Nesterov: :math:`w \leftarrow w - \eta (u + w_d w + \mu v)`. Decoupled decay shrinks first,
    :math:`w \leftarrow (1 - \eta w_d) w`, with no :math:`w_d w` in v.

    Args:
        learning_rate: as ``mindspore.nn.Optimizer`` takes it.
        parameters: Parameters or parameter groups.
        momentum: :math:`\mu`.
        nesterov: Nesterov's rule in the place of the heavy ball.
        weight_decay: :math:`w_d`.
        decoupled_weight_decay: shrink weights outside the momentum.
    """

    def __init__(
        self,
        learning_rate: Any,
        parameters: Any,
        *,
        momentum: float,
        nesterov: bool,
        weight_decay: Any,
        decoupled_weight_decay: bool,
    ) -> None:
        # The base class would multiply weight decay by a loss scale, to divide both by it later; here
        # gradients are unscaled first.
        super().__init__(learning_rate, parameters, weight_decay, loss_scale=1.0)
        self.decoupled_weight_decay = decoupled_weight_decay
        self.momentum = Parameter(Tensor(momentum, ms.float32), name="momentum", requires_grad=False)
        self.moments = self.parameters.clone(prefix="moments", init="zeros")
        self.nesterov = nesterov
        self.apply_momentum = ops.ApplyMomentum()

    def update_parameters(self, learning_rate: Any, updates: tuple[Tensor, ...]) -> bool:
        """Weight decay, momentum and learning rate: nn.Momentum's rule on the updates."""
        if self.decoupled_weight_decay:
            self.shrink_parameters(learning_rate)
        else:
            updates = self.decay_weight(updates)
        apply, momentum = self.apply_momentum, self.momentum
        if self.nesterov and self.is_group_lr:
            step = ops.partial(_nesterov_step, momentum)
            self.hyper_map_reverse(step, learning_rate, updates, self.parameters, self.moments)
        elif self.nesterov:
            step = ops.partial(_nesterov_step, momentum, learning_rate)
            self.hyper_map_reverse(step, updates, self.parameters, self.moments)
        elif self.is_group_lr:
            step = ops.partial(_momentum_step, apply, momentum)
            self.hyper_map_reverse(step, learning_rate, updates, self.parameters, self.moments)
        else:
            step = ops.partial(_momentum_step, apply, momentum, learning_rate)
            self.hyper_map_reverse(step, updates, self.parameters, self.moments)
        return True

    def shrink_parameters(self, learning_rate: Any) -> bool:
        """Decoupled weight decay, w <- (1 - lr weight_decay) w."""
        if self.exec_weight_decay:
            decay = self.get_weight_decay()
            if self.is_group and self.is_group_lr:
                self.map_(_shrink, learning_rate, decay, self.decay_flags, self.parameters)
            elif self.is_group:
                self.map_(ops.partial(_shrink, learning_rate), decay, self.decay_flags, self.parameters)
            else:
                self.map_(ops.partial(_shrink, learning_rate, decay), self.decay_flags, self.parameters)
        return True
