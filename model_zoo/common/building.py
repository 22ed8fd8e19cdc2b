"""Builds what a recipe's training is made of."""

from __future__ import annotations

from dataclasses import dataclass

import mindspore.nn as nn

from model_zoo.common.data.shards import Shard
from model_zoo.common.drawn_targets import drawn_targets
from model_zoo.common.networks import build_network
from model_zoo.common.objectives import RunningObjective, create_metrics, create_objective
from model_zoo.common.optimizers import create_optimizer
from model_zoo.common.precision import training_options
from model_zoo.common.recipe import Recipe
from ms_kfac import Model


@dataclass(frozen=True)
class Parts:
    """What a training is made of.

    Attributes:
        network: the network, tapped where the optimizer is of second order.
        objective: the loss with its running sums.
        optimizer: the optimizer.
        model: what trains and evaluates.
    """

    network: nn.Cell
    objective: RunningObjective
    optimizer: nn.Optimizer
    model: Model


def build(
    recipe: Recipe,
    classes: int,
    batches_per_epoch: int,
    shard: Shard = Shard(),  # noqa: B008
) -> Parts:
    """Builds network, objective, optimizer and model.

    Args:
        recipe: the recipe.
        classes: the number of classes in the data.
        batches_per_epoch: the number of batches in an epoch.
        shard: this process among those that share every batch.

    Returns:
        The parts.
    """
    name = recipe.network.name
    network = build_network(recipe.network, classes)
    optimizer = create_optimizer(recipe, network, batches_per_epoch, distributed=shard.size > 1)
    objective = create_objective(name, shard, label_smoothing=recipe.label_smoothing)
    model = Model(
        network,
        objective,
        optimizer,
        metrics=create_metrics(name, shard),
        sample_targets=drawn_targets(name, shard.rank),
        **training_options(recipe),
    )
    return Parts(network, objective, optimizer, model)
