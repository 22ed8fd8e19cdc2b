"""The update of the parameters: the momentum rule, and AdamW for those without a block on request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mindspore import Parameter, Tensor, nn, ops

from ms_kfac.ops.step.adam_step import AdamStep
from ms_kfac.ops.step.number_schedule import NumberSchedule
from ms_kfac.optim.adam import AdamW
from ms_kfac.optim.momentum import MomentumOptimizer


class FirstOrderOptimizer(MomentumOptimizer):
    """The momentum rule for all parameters, or for those with a block and AdamW for the others."""

    takes_adam: bool

    def create_adam_step(
        self, settings: AdamW | None, first_order: Sequence[Parameter], groups: Sequence[Any]
    ) -> list[bool]:
        """Create the operator that updates parameters without a block by AdamW.

        Args:
            settings: AdamW for these parameters; None for the momentum rule.
            first_order: the parameters without a block.
            groups: the parameters or parameter groups given by the user.

        Returns:
            For each parameter, whether AdamW updates it.

        Raises:
            ValueError: if a group sets one learning rate for both rules.
        """
        without = {id(parameter) for parameter in first_order}
        by_adam = [settings is not None and id(parameter) in without for parameter in self.parameters]
        self.takes_adam = any(by_adam)
        if settings is None or not self.takes_adam:
            return by_adam
        _refuse_shared_rates(groups, without)
        rates, decays = (_sets(groups, key, self.parameters) for key in ("lr", "weight_decay"))
        decays_at_all = isinstance(settings.weight_decay, nn.Cell) or settings.weight_decay > 0
        # MindSpore's flags exempt beta and gamma. With groups they say whether the group's decay is above 0.
        decayed = [
            flag if of_group else decays_at_all and (self.is_group or flag)
            for flag, of_group in zip(self.decay_flags, decays)
        ]
        name = f"{self.prefix}.adam"
        self.adam_rate = NumberSchedule(settings.learning_rate, f"{name}.learning_rate")
        self.adam_decay = NumberSchedule(settings.weight_decay)
        self.adam_step = AdamStep(
            self.parameters,
            by_adam,
            decayed,
            rates,
            decays,
            beta1=settings.beta1,
            beta2=settings.beta2,
            eps=settings.eps,
            maps_rates=self.is_group_lr,
            maps_decays=self.is_group,
            name=name,
        )
        return by_adam

    def update_parameters(self, learning_rate: Any, updates: tuple[Tensor, ...], scale: Tensor) -> bool:
        """Take the momentum step, and AdamW's step.

        Args:
            learning_rate: that of the optimizer, or one per parameter.
            updates: U of the parameters with blocks, then the gradients of all parameters.
            scale: that of U; NaN if the step is skipped.

        Returns:
            True.
        """
        if self.takes_momentum:
            self.apply_momentum(learning_rate, updates, scale)
        if self.takes_adam:  # noqa: SIM102
            if ops.isfinite(scale):
                rate, decay = self.adam_rate(self.global_step), self.adam_decay(self.global_step)
                gradients = updates[-self.param_length :]
                self.adam_step(rate, decay, learning_rate, self.get_weight_decay(), gradients)
        return True


def _sets(groups: Iterable[Any], key: str, parameters: Sequence[Parameter]) -> list[bool]:
    """Whether the group of each parameter sets a key."""
    setting = {id(p) for group in groups if isinstance(group, dict) and key in group for p in group["params"]}
    return [id(parameter) in setting for parameter in parameters]


def _refuse_shared_rates(groups: Iterable[Any], first_order: Collection[int]) -> None:
    for index, group in enumerate(groups):
        if not isinstance(group, dict) or "lr" not in group:
            continue
        by_adam = [p.name for p in group["params"] if id(p) in first_order]
        others = [p.name for p in group["params"] if id(p) not in first_order]
        if by_adam and others:
            raise ValueError(
                f"params[{index}]: 'lr' must be for parameters with blocks ({others[0]}) or for those that "
                f"AdamW updates ({by_adam[0]}), got {group['lr']!r} for both; put the latter into a group "
                "without 'lr', or with one of its own"
            )
