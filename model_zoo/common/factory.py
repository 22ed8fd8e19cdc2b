"""Builds the network, loss, optimizer and model of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

import mindspore.nn as nn

from model_zoo.common.data.shards import Shard
from model_zoo.common.losses import RunningLoss, create_loss, create_metrics
from model_zoo.common.networks import build_network
from model_zoo.common.optimizers import create_optimizer
from model_zoo.common.precision import training_options
from model_zoo.common.recipe import Recipe
from model_zoo.common.sampled_targets import create_target_sampler
from ms_kfac import Model


@dataclass(frozen=True)
class TrainingComponents:
    """The components of a training run.

    Attributes:
        network: the network, with taps if the optimizer is second-order.
        loss_fn: the loss with its running sums.
        optimizer: the optimizer.
        model: trains and evaluates the network.
    """

    network: nn.Cell
    loss_fn: RunningLoss
    optimizer: nn.Optimizer
    model: Model


def build(
    recipe: Recipe,
    classes: int,
    batches_per_epoch: int,
    shard: Shard = Shard(),  # noqa: B008
) -> TrainingComponents:
    """Builds the network, the loss, the optimizer and the model.

    Args:
        recipe: the recipe.
        classes: the number of classes in the data.
        batches_per_epoch: the number of batches in an epoch.
        shard: this process's part of every batch.

    Returns:
        The components.
    """
    name = recipe.network.name
    network = build_network(recipe.network, classes)
    optimizer = create_optimizer(recipe, network, batches_per_epoch, distributed=shard.size > 1)
    loss_fn = create_loss(name, shard, label_smoothing=recipe.label_smoothing)
    model = Model(
        network,
        loss_fn,
        optimizer,
        metrics=create_metrics(name, shard),
        sample_targets=create_target_sampler(name, shard.rank),
        **training_options(recipe),
    )
    return TrainingComponents(network, loss_fn, optimizer, model)
