"""Builds the optimizer of a recipe."""

from __future__ import annotations

import dataclasses

import mindspore.nn as nn

import ms_kfac
from model_zoo.common.adamw import AdamW
from model_zoo.common.methods import METHODS
from model_zoo.common.options.optimizers import (
    AdamOptions,
    AdamWOptions,
    Interval,
    SecondOrderOptions,
    SGDMOptions,
)
from model_zoo.common.recipe import Recipe
from model_zoo.common.schedules import step_values
from ms_kfac.parallel import Distribution


def _policy(interval: Interval | None) -> int | ms_kfac.RefreshPolicy | None:
    return ms_kfac.IntervalSchedule(interval) if isinstance(interval, dict) else interval


def _second_order(
    options: SecondOrderOptions,
    network: nn.Cell,
    learning_rate: float | list[float],
    damping: float | list[float],
    first_order: str | ms_kfac.AdamW,
    distribution: Distribution | None,
    *,
    accumulation_steps: int,
) -> nn.Optimizer:
    hyper_parameters = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    for key in ("name", "learning_rate", "damping_schedule"):
        del hyper_parameters[key]
    hyper_parameters["damping"] = damping
    hyper_parameters["first_order"] = first_order
    hyper_parameters["accumulation_steps"] = accumulation_steps
    for key in ("factor_interval", "inverse_interval"):
        hyper_parameters[key] = _policy(hyper_parameters[key])
    if distribution is not None:
        hyper_parameters["distribution"] = distribution
    method = getattr(ms_kfac, METHODS[options.name].class_name)
    optimizer: nn.Optimizer = method(network, learning_rate, **hyper_parameters)
    return optimizer


def create_optimizer(
    recipe: Recipe, network: nn.Cell, batches_per_epoch: int, *, distributed: bool = False
) -> nn.Optimizer:
    """Builds the optimizer of a recipe.

    Args:
        recipe: the recipe.
        network: the network to train.
        batches_per_epoch: the number of batches in an epoch.
        distributed: whether several processes train together and the parallel section applies.

    Returns:
        The optimizer.
    """
    options = recipe.optimizer
    step_counts = (recipe.epochs, batches_per_epoch, recipe.accumulation_steps)
    learning_rate = step_values(recipe.schedule, options.learning_rate, *step_counts)
    if isinstance(options, SGDMOptions):
        parameters, decay = network.trainable_params(), options.weight_decay
        if options.nesterov:
            return nn.SGD(parameters, learning_rate, options.momentum, weight_decay=decay, nesterov=True)
        return nn.Momentum(parameters, learning_rate, options.momentum, weight_decay=decay)
    if isinstance(options, (AdamOptions, AdamWOptions)):
        adam = AdamW if isinstance(options, AdamWOptions) else nn.Adam
        return adam(
            network.trainable_params(),
            learning_rate,
            beta1=options.beta1,
            beta2=options.beta2,
            eps=options.eps,
            weight_decay=options.weight_decay,
        )
    damping = step_values(options.damping_schedule, options.damping, *step_counts)
    first_order: str | ms_kfac.AdamW = "momentum"
    if isinstance(options.first_order, AdamWOptions):
        rule = options.first_order
        first_order = ms_kfac.AdamW(
            step_values(recipe.schedule, rule.learning_rate, *step_counts),
            beta1=rule.beta1,
            beta2=rule.beta2,
            eps=rule.eps,
            weight_decay=rule.weight_decay,
        )
    distribution = Distribution(recipe.parallel.exchange, recipe.parallel.collective) if distributed else None
    return _second_order(
        options,
        network,
        learning_rate,
        damping,
        first_order,
        distribution,
        accumulation_steps=recipe.accumulation_steps,
    )
