"""Optimizers from a recipe."""

from __future__ import annotations

import dataclasses

import mindspore.nn as nn

import ms_kfac
from model_zoo.common.options.optimizers import AdamOptions, OptimizerOptions, SGDMOptions
from model_zoo.common.options.parallel import ParallelOptions
from ms_kfac.parallel import Distribution

_METHODS = {
    "kfac": ms_kfac.KFAC,
    "tkfac": ms_kfac.TKFAC,
    "smkfac": ms_kfac.SMKFAC,
    "skfac": ms_kfac.SKFAC,
    "ekfac": ms_kfac.EKFAC,
    "spngd": ms_kfac.SPNGD,
    "thor": ms_kfac.THOR,
}


def create_optimizer(
    options: OptimizerOptions,
    network: nn.Cell,
    learning_rate: float | list[float],
    parallel: ParallelOptions | None = None,
) -> nn.Optimizer:
    """Builds the optimizer of a recipe.

    Args:
        options: the recipe's optimizer section.
        network: the network to train.
        learning_rate: one rate, or one a step.
        parallel: the recipe's parallel section where there are other processes. Default: None.

    Returns:
        The optimizer.
    """
    if isinstance(options, SGDMOptions):
        return nn.Momentum(
            network.trainable_params(),
            learning_rate,
            options.momentum,
            weight_decay=options.weight_decay,
        )
    if isinstance(options, AdamOptions):
        return nn.Adam(
            network.trainable_params(),
            learning_rate,
            beta1=options.beta1,
            beta2=options.beta2,
            eps=options.eps,
            weight_decay=options.weight_decay,
        )
    hyper_parameters = dataclasses.asdict(options)
    del hyper_parameters["name"], hyper_parameters["learning_rate"]
    if parallel is not None:
        hyper_parameters["distribution"] = Distribution(parallel.exchange, parallel.collective)
    optimizer: nn.Optimizer = _METHODS[options.name](network, learning_rate, **hyper_parameters)
    return optimizer
