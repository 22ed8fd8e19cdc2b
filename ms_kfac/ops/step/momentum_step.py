r"""Apply weight decay, momentum and learning rate to all parameters at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_kfac.kernels.operator import is_native, native_operator
from ms_kfac.ops.graph.assign_cast import assign_cast
from ms_kfac.ops.step.check_step import is_taken

_scale = ops.MultitypeFuncGraph("scale_update")
_decay = ops.MultitypeFuncGraph("decay_update")
_shrink = ops.MultitypeFuncGraph("shrink_weight")
_heavy_ball = ops.MultitypeFuncGraph("heavy_ball_step")
_nesterov = ops.MultitypeFuncGraph("nesterov_step")


def _wide(tensor: Tensor) -> Tensor:
    """The values in the type of the arithmetic: float64 for float64, float32 for all others."""
    return tensor if tensor.dtype == ms.float64 else ops.cast(tensor, ms.float32)


@_scale.register("Tensor", "Bool", "Tensor")
def _scale_update(scale: Tensor, flag: bool, update: Tensor) -> Tensor:
    if flag:
        return update * ops.cast(scale, update.dtype)
    return update


@_decay.register("Tensor", "Bool", "Tensor", "Tensor")
def _decay_update(decay: Tensor, flag: bool, weight: Parameter, update: Tensor) -> Tensor:
    if flag:
        return update + weight * ops.cast(decay, weight.dtype)
    return update


@_shrink.register("Tensor", "Tensor", "Bool", "Tensor")
def _shrink_weight(learning_rate: Tensor, decay: Tensor, flag: bool, weight: Parameter) -> Tensor:
    """Shrink a float32 weight. For others, return the factor, and the step writes them once."""
    kept = ops.ones_like(learning_rate)
    if flag:
        shrinkage = learning_rate * decay
        factor = 1.0 - (ops.cast(shrinkage, ms.float64) if weight.dtype == ms.float64 else shrinkage)
        if weight.dtype == ms.float32:
            return ops.depend(kept, ops.assign(weight, weight * factor))
        return factor
    return kept


@_heavy_ball.register("Function", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _heavy_ball_step(
    apply: Any,
    momentum: Tensor,
    learning_rate: Tensor,
    kept: Tensor,
    update: Tensor,
    weight: Parameter,
    moment: Parameter,
) -> bool:
    if weight.dtype == ms.float32:
        return ops.depend(True, apply(weight, moment, learning_rate, ops.depend(update, kept), momentum))
    # Not ApplyMomentum, which has no bfloat16 on CPU, and before which graphs in MindSpore 2.10 lose an
    # assignment to a weight of another type.
    velocity = _wide(moment) * momentum + _wide(update)
    value = kept * _wide(weight) - learning_rate * velocity
    return ops.depend(True, (assign_cast(moment, velocity), assign_cast(weight, value)))


@_nesterov.register("Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor")
def _nesterov_step(
    momentum: Tensor,
    learning_rate: Tensor,
    kept: Tensor,
    update: Tensor,
    weight: Parameter,
    moment: Parameter,
) -> bool:
    # Not ApplyMomentum: its CPU kernel in MindSpore 2.10 accepts use_nesterov but ignores it.
    update = _wide(ops.depend(update, kept))
    velocity = _wide(moment) * momentum + update
    step = learning_rate * (update + momentum * velocity)
    value = _wide(weight)
    if weight.dtype != ms.float32:
        value = value * kept
    return ops.depend(True, (assign_cast(moment, velocity), assign_cast(weight, value - step)))


class MomentumStep(nn.Cell):
    r"""Heavy-ball or Nesterov momentum with coupled or decoupled weight decay, in place.

    .. math::
        u = \nu U + w_d w, \qquad v \leftarrow \mu v + u, \qquad w \leftarrow w - \eta v

    (Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", in the form
    of ``mindspore.nn.Momentum``, whose v does not include the learning rate). Nesterov momentum:
    :math:`w \leftarrow w - \eta (u + \mu v)`. Decoupled weight decay first shrinks the weights,
    :math:`w \leftarrow (1 - \eta w_d) w`, and u then has no term :math:`w_d w`.

    The native kernel runs only if all weights are float32. Otherwise the fallback updates all weights.

    Args:
        weights: w, the parameters.
        moments: v, in the shapes of the weights.
        momentum: :math:`\mu`, scalar float32.
        scaled: for each parameter, whether :math:`\nu` multiplies its update.
        decayed: for each parameter, whether weight decay applies.
        sources: for each parameter, the index of its update.
        nesterov: True for Nesterov momentum, False for the heavy ball.
        decoupled: True for decoupled weight decay, False for coupled weight decay.
        own_rates: whether each parameter has a separate learning rate.
        own_decays: whether each parameter has a separate weight decay.

    Inputs:
        - **learning_rate** (Union[Tensor, tuple[Tensor]]) - :math:`\eta`, scalar float32, or one per
          parameter.
        - **decay** (Union[Tensor, tuple[Tensor]]) - :math:`w_d`, scalar float32, or one per parameter. Unused
          if no parameter decays.
        - **scale** (Tensor) - :math:`\nu`, scalar float32. With NaN nothing changes.
        - **updates** (tuple[Tensor]) - U, in the shapes of the weights, possibly with others.

    Outputs:
        bool, True.

    Platforms: CPU, GPU (native kernel or fallback), Ascend (composed of Mul, Add, Assign and ApplyMomentum).
    """

    def __init__(
        self,
        weights: Sequence[Parameter],
        moments: Sequence[Parameter],
        momentum: Parameter,
        *,
        scaled: Sequence[bool],
        decayed: Sequence[bool],
        sources: Sequence[int],
        nesterov: bool,
        decoupled: bool,
        own_rates: bool,
        own_decays: bool,
    ) -> None:
        super().__init__(auto_prefix=False)
        # Not in the Cell's registry, whose keys are the network's names and could be those of attributes.
        self.__dict__["weights"] = ParameterTuple(weights)
        self.moments = ParameterTuple(moments)
        self.momentum = momentum
        self.scaled = tuple(scaled)
        self.decayed = tuple(decayed)
        self.sources = tuple(sources)
        self.updates = max(sources) + 1
        self.scales = any(scaled)
        self.decays = any(decayed)
        self.nesterov = nesterov
        self.decoupled = decoupled
        self.own_rates = own_rates
        self.own_decays = own_decays
        self.unshrunk = (Tensor(1.0, ms.float32),) * len(self.weights)
        self.apply_momentum = ops.ApplyMomentum()
        self.map_ = ops.Map()
        self.hyper_map_reverse = ops.HyperMap(None, True)
        float32 = all(weight.dtype == ms.float32 for weight in weights)
        self.native = float32 and is_native("momentum_step")
        if self.native:
            self.kernel = native_operator(
                "momentum_step",
                preconditioned=[int(flag) for flag in scaled],
                decayed=[int(flag) for flag in decayed],
                rates=len(self.weights) if own_rates else 1,
                decays=(len(self.weights) if own_decays else 1) if self.decays else 0,
                sources=list(sources),
                updates=self.updates,
                nesterov=nesterov,
                decoupled=decoupled,
            )

    def construct(self, learning_rate: Any, decay: Any, scale: Tensor, updates: tuple[Tensor, ...]) -> bool:
        if self.native:
            used = updates[: self.updates]
            if self.decays:
                self.kernel(self.momentum, scale, learning_rate, decay, used, *self.weights, *self.moments)
            else:
                self.kernel(self.momentum, scale, learning_rate, used, *self.weights, *self.moments)
        elif is_taken(scale):
            own: tuple[Tensor, ...] = ()
            for source in self.sources:
                own = (*own, updates[source])
            self.fallback(learning_rate, decay, scale, own)
        return True

    def fallback(self, learning_rate: Any, decay: Any, scale: Tensor, updates: tuple[Tensor, ...]) -> bool:
        """Fallback, composed of MindSpore operators, with one update per parameter."""
        if self.scales:
            updates = self.map_(ops.partial(_scale, scale), self.scaled, updates)
        kept = self.unshrunk
        if self.decays and self.decoupled:
            kept = self.shrink(learning_rate, decay)
        elif self.decays:
            updates = self.decay(decay, updates)
        apply, momentum = self.apply_momentum, self.momentum
        if self.nesterov and self.own_rates:
            step = ops.partial(_nesterov, momentum)
            self.hyper_map_reverse(step, learning_rate, kept, updates, self.weights, self.moments)
        elif self.nesterov:
            step = ops.partial(_nesterov, momentum, learning_rate)
            self.hyper_map_reverse(step, kept, updates, self.weights, self.moments)
        elif self.own_rates:
            step = ops.partial(_heavy_ball, apply, momentum)
            self.hyper_map_reverse(step, learning_rate, kept, updates, self.weights, self.moments)
        else:
            step = ops.partial(_heavy_ball, apply, momentum, learning_rate)
            self.hyper_map_reverse(step, kept, updates, self.weights, self.moments)
        return True

    def decay(self, decay: Any, updates: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Add coupled weight decay, U + w_d w."""
        if self.own_decays:
            return self.map_(_decay, decay, self.decayed, self.weights, updates)
        return self.map_(ops.partial(_decay, decay), self.decayed, self.weights, updates)

    def shrink(self, learning_rate: Any, decay: Any) -> tuple[Tensor, ...]:
        """Apply decoupled weight decay, w <- (1 - lr weight_decay) w, or return the factors for the step."""
        if self.own_rates and self.own_decays:
            return self.map_(_shrink, learning_rate, decay, self.decayed, self.weights)
        if self.own_decays:
            return self.map_(ops.partial(_shrink, learning_rate), decay, self.decayed, self.weights)
        return self.map_(ops.partial(_shrink, learning_rate, decay), self.decayed, self.weights)
