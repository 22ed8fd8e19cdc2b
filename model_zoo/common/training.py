"""Trains one recipe through mindspore.train.Model."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from model_zoo.common import host
from model_zoo.common.curves import CURVES_FILE, draw_curves
from model_zoo.common.data.pipelines import check_batch_size, evaluation_batches, load_data, training_batches
from model_zoo.common.data.shards import Shard
from model_zoo.common.journal import METRICS_FILE, Journal
from model_zoo.common.networks import build_network, parameter_count
from model_zoo.common.objectives import create_metrics, create_objective
from model_zoo.common.optimizers import create_optimizer
from model_zoo.common.options.networks import FIGURE_OF_NETWORK
from model_zoo.common.recipe import Recipe
from model_zoo.common.schedules import learning_rates
from ms_kfac import Model
from ms_kfac.train import ProgressBar

RUN_FILE = "run.json"
CHECKPOINT_FILE = "network.ckpt"


@dataclass(frozen=True)
class RunOptions:
    """What the command line says beside the recipe.

    Attributes:
        name: the run's name.
        data_dir: the folder of CIFAR-10 or MNIST.
        output: the folder to write to.
        device: "CPU", "GPU" or "Ascend".
        log_every: steps between two step objects of metrics.jsonl.
        progress: whether a bar is drawn when the screen is a terminal.
    """

    name: str
    data_dir: Path | None
    output: Path
    device: str = "CPU"
    log_every: int = 10
    progress: bool = True


def headline_figure(recipe: Recipe) -> str:
    """The key of the epoch objects that judges a run.

    An auto-encoder is judged by how well it fits the training images, a classifier by images that it has not
    seen.

    Args:
        recipe: the recipe of the run.

    Returns:
        Such as "test_accuracy".
    """
    figure = FIGURE_OF_NETWORK[recipe.network.name]
    for split in ("train", "test") if figure == "reconstruction_error" else ("test", "train"):
        if split in recipe.evaluate:
            return f"{split}_{figure}"
    return f"running_{figure}"


def start_mindspore(recipe: Recipe, device: str) -> str:
    """Sets the device, the mode and the seeds.

    Args:
        recipe: whose mode and seed hold.
        device: "CPU", "GPU" or "Ascend".

    Returns:
        One line that says on what the run goes.
    """
    line = host.prepare(device)
    ms.set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE if recipe.mode == "graph" else ms.PYNATIVE_MODE)
    ms.set_seed(recipe.seed)
    return f"{recipe.mode} mode, {line}"


def describe_run(recipe: Recipe, options: RunOptions) -> dict[str, Any]:
    """What run.json holds: the recipe as resolved, the versions and the machine."""
    return {
        "name": options.name,
        "recipe": dataclasses.asdict(recipe),
        "headline": headline_figure(recipe),
        "versions": {
            "python": platform.python_version(),
            "mindspore": ms.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "device": options.device,
            host.ONEDNN_VARIABLE: os.environ.get(host.ONEDNN_VARIABLE),
        },
    }


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes run.json."""
    (folder / RUN_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def describe_section(section: Any) -> str:
    """One section of a recipe in a line, as "sgdm (learning_rate 0.1, momentum 0.9)"."""
    options = dataclasses.asdict(section)
    name = options.pop("name")
    shown = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{name} ({shown})" if shown else name


def train_recipe(recipe: Recipe, options: RunOptions) -> list[dict[str, Any]]:
    """Trains a recipe, prints what happens and writes metrics.jsonl, run.json, the checkpoint and curves.png.

    Args:
        recipe: what to train.
        options: where and how.

    Returns:
        The epoch objects of metrics.jsonl.
    """
    data = load_data(recipe.data, options.data_dir)
    check_batch_size(data, recipe.data, Shard())
    machine = start_mindspore(recipe, options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    description = describe_run(recipe, options)
    write_description(options.output, description)

    batches = training_batches(data, recipe.data, seed=recipe.seed, epoch=0, epochs=recipe.epochs)
    steps = batches.get_dataset_size()
    network = build_network(recipe.network, data.classes)
    rates = learning_rates(recipe.schedule, recipe.optimizer.learning_rate, recipe.epochs, steps)
    print(f"{options.name}: {describe_section(recipe.network)}, {parameter_count(network):,} weights")
    print(f"optimizer: {describe_section(recipe.optimizer)}; schedule: {describe_section(recipe.schedule)}")
    print(f"{data.title}: {data.training_images:,} training and {data.test_images:,} test images")
    print(machine)
    optimizer = create_optimizer(recipe.optimizer, network, rates)
    if hasattr(optimizer, "summary"):
        print(optimizer.summary())

    objective = create_objective(recipe.network.name)
    model = Model(network, objective, optimizer, metrics=create_metrics(recipe.network.name))
    evaluated = {split: evaluation_batches(data, split, recipe.data) for split in recipe.evaluate}

    def evaluate() -> dict[str, float]:
        return {
            f"{split}_{name}": float(value)
            for split, rows in evaluated.items()
            for name, value in model.eval(rows, dataset_sink_mode=False).items()
        }

    journal = Journal(
        options.output / METRICS_FILE,
        objective,
        FIGURE_OF_NETWORK[recipe.network.name],
        evaluate,
        options.log_every,
    )
    bar = ProgressBar(figures=journal.figures, bar=None if options.progress else False)
    model.train(recipe.epochs, batches, callbacks=[journal, bar], dataset_sink_mode=False)

    if hasattr(optimizer, "refreshes"):
        description["refreshes"] = optimizer.refreshes()
        write_description(options.output, description)
    averages = getattr(optimizer, "averages", False)
    with optimizer.averaged_weights() if averages else nullcontext():
        # What was evaluated.
        ms.save_checkpoint(network, str(options.output / CHECKPOINT_FILE))
    draw_curves(
        {recipe.optimizer.name: options.output},
        headline_figure(recipe),
        options.name,
        options.output / CURVES_FILE,
    )
    return journal.epochs
