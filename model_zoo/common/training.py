"""Trains one recipe through mindspore.train.Model."""

from __future__ import annotations

from typing import Any, Callable

import mindspore as ms
from mindspore import nn
from mindspore.communication import GlobalComm
from mindspore.train import Callback

from model_zoo.common import host
from model_zoo.common.building import build
from model_zoo.common.checkpoint.files import NETWORK_FILE, STATE_FILE, Position, read_position
from model_zoo.common.checkpoint.resume import where_to_begin
from model_zoo.common.checkpoint.state import load_state
from model_zoo.common.checkpoint.writer import CheckpointWriter, StepNumbers, evaluated_weights
from model_zoo.common.curves import CURVES_FILE, draw_curves
from model_zoo.common.data.pipelines import (
    AnyDataSet,
    check_batch_size,
    evaluation_batches,
    load_data,
    training_batches,
)
from model_zoo.common.distribution import require_agreement, set_device, weights_of
from model_zoo.common.epochs import Epochs
from model_zoo.common.journal import METRICS_FILE, Journal, JournalState
from model_zoo.common.networks import parameter_count
from model_zoo.common.objectives import RunningObjective
from model_zoo.common.options.networks import FIGURE_OF_NETWORK
from model_zoo.common.options.precision import PrecisionOptions
from model_zoo.common.precision import check_step
from model_zoo.common.recipe import Recipe
from model_zoo.common.run_description import (
    DATA,
    RESUMED,
    describe_broken_images,
    describe_run,
    describe_section,
    headline_figure,
    resumed_after,
    write_description,
)
from model_zoo.common.run_options import RunOptions
from ms_kfac import Model
from ms_kfac.parallel import average_moving_statistics
from ms_kfac.train import ProgressBar


def start_mindspore(recipe: Recipe, device: str) -> str:
    """Sets the device, the mode and the seeds.

    Args:
        recipe: whose mode and seed hold.
        device: "CPU", "GPU" or "Ascend".

    Returns:
        One line that says on what the run goes.

    Raises:
        UsageError: MindSpore can't run on the device here.
    """
    line = host.prepare(device)
    if not GlobalComm.INITED:
        # Where processes have joined, their device is set, and can't be set again.
        set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE if recipe.mode == "graph" else ms.PYNATIVE_MODE)
    ms.set_seed(recipe.seed)
    return f"{recipe.mode} mode, {line}"


def epochs_of(recipe: Recipe, data: AnyDataSet, options: RunOptions, begun: Position | None) -> Epochs:
    """The training batches from where a run begins.

    Args:
        recipe: whose data section and seed hold.
        data: the data set.
        options: which process of how many.
        begun: where the run stood; None at its beginning.

    Returns:
        The data set for mindspore.train.Model.
    """

    def pipeline(epoch: int, skip: int) -> Any:
        return training_batches(
            data, recipe.data, seed=recipe.seed, epoch=epoch, shard=options.shard, skip=skip
        )

    first = pipeline(0, 0)
    epoch, skip = (0, 0) if begun is None else (begun.epoch, begun.step_of_epoch)
    # Images a second are those of all processes.
    return Epochs(pipeline, first.get_dataset_size(), recipe.data.batch_size, epoch, skip)


def evaluation_of(
    recipe: Recipe, data: AnyDataSet, network: nn.Cell, model: Model, options: RunOptions
) -> Callable[[], dict[str, float]]:
    """What evaluates a model on the splits of a recipe.

    Args:
        recipe: names the splits.
        data: the data set.
        network: the plain network.
        model: the model.
        options: which process of how many.

    Returns:
        A function that gives the figures by name, as "test_accuracy".
    """
    evaluated = {
        split: evaluation_batches(data, split, recipe.data, shard=options.shard) for split in recipe.evaluate
    }

    def evaluate() -> dict[str, float]:
        if recipe.parallel.batch_norm == "averaged":
            average_moving_statistics(network)
        return {
            f"{split}_{name}": float(value)
            for split, rows in evaluated.items()
            for name, value in model.eval(rows, dataset_sink_mode=False).items()
        }

    return evaluate


def callbacks_of(
    recipe: Recipe,
    options: RunOptions,
    network: nn.Cell,
    objective: RunningObjective,
    evaluate: Callable[[], dict[str, float]],
    begun: Position | None,
) -> tuple[Journal, list[Callback]]:
    """What accompanies a training.

    Args:
        recipe: the recipe.
        options: where and how.
        network: the plain network.
        objective: the loss with its running sums.
        evaluate: what the journal calls after each epoch.
        begun: where the run stood; None at its beginning.

    Returns:
        The journal, and all callbacks in their order.
    """
    journal = Journal(
        options.output / METRICS_FILE if options.shard.rank == 0 else None,
        objective,
        FIGURE_OF_NETWORK[recipe.network.name],
        evaluate,
        options.log_every,
        None if begun is None else JournalState(**begun.journal),
    )
    # The figures are those of all processes, which must ask for them after the same step.
    drawn = None if options.progress and options.shard.size == 1 else False
    bar = ProgressBar(figures=journal.figures, bar=drawn)
    callbacks: list[Callback] = [journal, bar]
    if begun is not None:
        callbacks.insert(0, StepNumbers(begun.step, recipe.epochs))
    if options.checkpoint_every is not None:
        callbacks.append(CheckpointWriter(recipe, options, network, journal))
    return journal, callbacks


def train_recipe(recipe: Recipe, options: RunOptions) -> list[dict[str, Any]]:
    """Trains a recipe, prints what happens and writes metrics.jsonl, run.json, network.ckpt and curves.png.

    Args:
        recipe: what to train; that of the run where it is resumed.
        options: where and how.

    Returns:
        The epoch objects of metrics.jsonl.

    Raises:
        DataError: the data can't be read, or an epoch has no batch.
        CheckpointError: the run can't be resumed.
    """
    data = load_data(recipe.data, options.data_dir)
    check_batch_size(data, recipe.data, options.shard)
    checkpoint = where_to_begin(options)
    begun = None if checkpoint is None else read_position(checkpoint)
    machine = start_mindspore(recipe, options.device)
    shard = options.shard
    description = describe_run(options.name, recipe, options.device)
    description[DATA] = data.describe()
    description[RESUMED] = [] if begun is None else [*resumed_after(options.output), begun.step]
    if shard.rank == 0:
        options.output.mkdir(parents=True, exist_ok=True)
        # That of an earlier end of the run, which is not the network's any more.
        (options.output / NETWORK_FILE).unlink(missing_ok=True)
        write_description(options.output, description)

    batches = epochs_of(recipe, data, options, begun)
    steps = batches.get_dataset_size()
    check_step(recipe, steps)
    parts = build(recipe, data.classes, steps, shard)
    network, objective, optimizer, model = parts.network, parts.objective, parts.optimizer, parts.model
    print(f"{options.name}: {describe_section(recipe.network)}, {parameter_count(network):,} weights")
    print(f"optimizer: {describe_section(recipe.optimizer)}; schedule: {describe_section(recipe.schedule)}")
    if recipe.precision != PrecisionOptions() or recipe.accumulation_steps > 1:
        scale = f"amp level {recipe.precision.amp_level}, loss scale {recipe.precision.loss_scale}"
        print(f"precision: {scale}; batches a step: {recipe.accumulation_steps}")
    print(f"{data.title}: {data.training_images:,} training and {data.test_images:,} test images")
    print(machine)
    if hasattr(optimizer, "summary"):
        print(optimizer.summary())

    if checkpoint is not None and begun is not None:
        load_state(model.train_network, checkpoint / STATE_FILE)
        print(f"resumed after {begun.step:,} steps from {checkpoint}")
    require_agreement("the recipe and the steps done", repr((recipe, begun and begun.step)).encode(), shard)
    require_agreement("the weights", weights_of(network), shard)
    evaluate = evaluation_of(recipe, data, network, model, options)
    journal, callbacks = callbacks_of(recipe, options, network, objective, evaluate, begun)
    journal.open()
    done = 0 if begun is None else begun.epoch
    if done < recipe.epochs:
        model.train(recipe.epochs, batches, callbacks, dataset_sink_mode=False, initial_epoch=done)

    # Once more: broken images are found only when they are met, by each process those of its share.
    description[DATA] = data.describe()
    for line in describe_broken_images(description[DATA]):
        print(line)
    if shard.rank > 0:
        return journal.epochs
    if hasattr(optimizer, "refreshes"):
        description["refreshes"] = optimizer.refreshes()
    write_description(options.output, description)
    with evaluated_weights(optimizer):
        ms.save_checkpoint(network, str(options.output / NETWORK_FILE))
    draw_curves(
        {recipe.optimizer.name: options.output},
        headline_figure(recipe),
        options.name,
        options.output / CURVES_FILE,
    )
    return journal.epochs
