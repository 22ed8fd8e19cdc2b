"""Exports a trained network as MindIR, without taps and optimizer."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np

from model_zoo.common.checkpoint.state import load_network, read_parameters
from model_zoo.common.durable_files import replacing
from model_zoo.common.errors import CheckpointError
from model_zoo.common.networks import build_network
from model_zoo.common.options.data import DataOptions, EncodedImages, PixelVectors, TextWindows
from model_zoo.common.recipe import Recipe
from model_zoo.common.training import start_mindspore


def input_shape(options: DataOptions, batch: int) -> tuple[int, ...]:
    """The input shape of a recipe's network.

    Args:
        options: the recipe's data section.
        batch: the number of images.

    Returns:
        (batch, 3, height, width), (batch, pixels) or (batch, window).
    """
    if isinstance(options, TextWindows):
        return batch, options.window
    if isinstance(options, PixelVectors):
        return batch, 14 * 14 if options.name == "mnist14" else 28 * 28
    side = options.image_size if isinstance(options, EncodedImages) else 32
    return batch, 3, side, side


def trained_network(recipe: Recipe, file: Path) -> ms.nn.Cell:
    """Loads the plain network of a checkpoint.

    Args:
        recipe: the recipe of the network.
        file: the checkpoint file.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: the file is missing, damaged or from another network.
    """
    saved = read_parameters(file)
    # A classifier's last parameter is the bias of its output layer: its length is the number of classes.
    last = build_network(recipe.network, classes=2).trainable_params()[-1].name
    if last not in saved:
        raise CheckpointError(f"checkpoint {file} lacks parameter {last} of the recipe's network.")
    network = build_network(recipe.network, classes=saved[last].shape[0])
    load_network(network, file)
    network.set_train(False)
    return network


def export_network(recipe: Recipe, file: Path, output: Path, batch: int, device: str) -> tuple[int, ...]:
    """Exports a trained network as MindIR.

    Args:
        recipe: the recipe of the network.
        file: the checkpoint file.
        output: the file to write, ending in .mindir.
        batch: batch size of the exported network.
        device: "CPU", "GPU" or "Ascend".

    Returns:
        The shape of its input.

    Raises:
        CheckpointError: the file is missing, damaged or from another network.
    """
    start_mindspore(recipe, device)
    network = trained_network(recipe, file)
    shape = input_shape(recipe.data, batch)
    output.parent.mkdir(parents=True, exist_ok=True)
    inputs = ms.Tensor(np.zeros(shape, np.int32 if isinstance(recipe.data, TextWindows) else np.float32))
    with replacing(output) as new:
        ms.export(network, inputs, file_name=str(new.with_suffix("")), file_format="MINDIR")
    return shape
