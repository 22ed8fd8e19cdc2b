"""Evaluates a saved network on one split of a recipe's data."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from mindspore.train import Model

from model_zoo.common.data.pipelines import evaluation_batches, load_data
from model_zoo.common.errors import CheckpointError
from model_zoo.common.networks import build_network
from model_zoo.common.objectives import create_metrics, create_objective
from model_zoo.common.recipe import Recipe
from model_zoo.common.run_description import describe_broken_images
from model_zoo.common.training import start_mindspore


def load_checkpoint(network: ms.nn.Cell, path: Path) -> None:
    """Loads a checkpoint that must hold exactly the network's parameters.

    Args:
        network: receives the weights.
        path: the checkpoint file.

    Raises:
        CheckpointError: the file is missing or damaged, or a parameter is missing or has another shape.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist.")
    try:
        saved = ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {path} can't be read: it is damaged or no MindSpore checkpoint."
        ) from error
    for name, parameter in network.parameters_and_names():
        if name not in saved:
            raise CheckpointError(f"checkpoint {path} lacks the parameter {name} of the recipe's network.")
        if saved[name].shape != parameter.shape:
            raise CheckpointError(
                f"checkpoint {path} holds {name} with the shape {saved[name].shape}, where the recipe's "
                f"network has {parameter.shape}."
            )
    ms.load_param_into_net(network, saved)


def evaluate_checkpoint(
    recipe: Recipe, checkpoint: Path, data_dir: Path | None, split: str, device: str
) -> dict[str, float]:
    """Evaluates a checkpoint, and prints which images were broken and skipped.

    Args:
        recipe: says which network and data.
        checkpoint: the file that training wrote.
        data_dir: the folder of the data; the digits need none.
        split: "train" or "test".
        device: "CPU", "GPU" or "Ascend".

    Returns:
        The loss and the figure by name.
    """
    data = load_data(recipe.data, data_dir)
    start_mindspore(recipe, device)
    network = build_network(recipe.network, data.classes)
    load_checkpoint(network, checkpoint)
    name = recipe.network.name
    model = Model(network, create_objective(name), metrics=create_metrics(name))
    results = model.eval(evaluation_batches(data, split, recipe.data), dataset_sink_mode=False)
    for line in describe_broken_images(data.describe()):
        print(line)
    return {key: float(value) for key, value in results.items()}
