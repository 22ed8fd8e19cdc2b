"""The update rule of ``nn.Momentum``: weight decay, momentum and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn

from ms_kfac.ops.step.momentum_step import MomentumStep
from ms_kfac.optim.parameter_names import apart_from_attributes, prefix_names

# Names that MindSpore's base class and this one give to their Parameters, in every instance.
_OWN_NAMES = ("global_step", "learning_rate", "momentum")


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
        nesterov: use Nesterov's momentum instead of the heavy ball.
        weight_decay: :math:`w_d`.
        decoupled_weight_decay: shrink weights outside the momentum.
        prefix: prefix of the names of the optimizer's Parameters. Moments are named after the weights
            instead.
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
        prefix: str,
    ) -> None:
        # The base class multiplies weight decay by the loss scale and later divides by it, but gradients are
        # already unscaled here.
        with apart_from_attributes(parameters):
            super().__init__(learning_rate, parameters, weight_decay, loss_scale=1.0)
        self.decoupled_weight_decay = decoupled_weight_decay
        self.momentum = Parameter(Tensor(momentum, ms.float32), name="momentum", requires_grad=False)
        # Not those of a schedule that the user may give to several optimizers.
        weights = {id(parameter) for parameter in self.parameters}
        own = [p for p in self.get_parameters() if p.name.startswith(_OWN_NAMES) and id(p) not in weights]
        prefix_names(own, prefix)
        self.nesterov = nesterov

    def create_momentum_step(
        self, scaled: Sequence[bool], sources: Sequence[int], followed: Sequence[bool]
    ) -> None:
        """Create the operator of :meth:`apply_momentum`.

        Args:
            scaled: whether the scale multiplies the update, one per parameter.
            sources: index of each parameter's update in the tuple of updates.
            followed: whether this rule updates the parameter, one per parameter.
        """
        positions = [index for index, flag in enumerate(followed) if flag]
        self.takes_momentum = len(positions) > 0
        self.takes_momentum_alone = len(positions) == len(self.parameters)
        self.momentum_positions = tuple(positions)
        weights = ParameterTuple([self.parameters[index] for index in positions])
        self.moments = weights.clone(prefix="moments", init="zeros")
        if not self.takes_momentum:
            return
        self.momentum_step = MomentumStep(
            weights,
            self.moments,
            self.momentum,
            scaled=[scaled[index] for index in positions],
            sources=[sources[index] for index in positions],
            decayed=[self.exec_weight_decay and self.decay_flags[index] for index in positions],
            nesterov=self.nesterov,
            decoupled=self.decoupled_weight_decay,
            own_rates=self.is_group_lr,
            own_decays=self.is_group,
        )

    def apply_momentum(self, learning_rate: Any, updates: tuple[Tensor, ...], scale: Tensor) -> bool:
        """Apply scale, weight decay, momentum and learning rate to the parameters, as nn.Momentum does."""
        decay = self.get_weight_decay()
        if not self.takes_momentum_alone:
            learning_rate = self.of_momentum(learning_rate) if self.is_group_lr else learning_rate
            decay = self.of_momentum(decay) if self.is_group else decay
        return self.momentum_step(learning_rate, decay, scale, updates)

    def of_momentum(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Out of one value per parameter, those of the parameters that follow the momentum rule."""
        chosen: tuple[Tensor, ...] = ()
        for index in self.momentum_positions:
            chosen = (*chosen, values[index])
        return chosen
