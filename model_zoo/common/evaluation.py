"""Evaluates a saved network on one split of a recipe's data."""

from __future__ import annotations

from pathlib import Path

from mindspore.train import Model

from model_zoo.common.checkpoint.state import load_network
from model_zoo.common.data.pipelines import evaluation_batches, load_data
from model_zoo.common.losses import create_loss, create_metrics
from model_zoo.common.networks import build_network
from model_zoo.common.recipe import Recipe
from model_zoo.common.run_description import describe_broken_images
from model_zoo.common.training import start_mindspore


def evaluate_checkpoint(
    recipe: Recipe, checkpoint: Path, data_dir: Path | None, split: str, device: str
) -> dict[str, float]:
    """Evaluates a checkpoint and prints the broken images that were skipped.

    Args:
        recipe: the recipe of the network and the data.
        checkpoint: the file that training wrote.
        data_dir: the folder of the data; not needed for the digits and stdlib.
        split: "train" or "test".
        device: "CPU", "GPU" or "Ascend".

    Returns:
        The loss and the metric, by name.
    """
    data = load_data(recipe.data, data_dir)
    start_mindspore(recipe, device)
    network = build_network(recipe.network, data.classes)
    load_network(network, checkpoint)
    name = recipe.network.name
    model = Model(network, create_loss(name), metrics=create_metrics(name))
    results = model.eval(evaluation_batches(data, split, recipe.data), dataset_sink_mode=False)
    for line in describe_broken_images(data.describe()):
        print(line)
    return {key: float(value) for key, value in results.items()}
