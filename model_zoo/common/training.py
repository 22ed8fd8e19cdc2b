"""Trains a recipe through mindspore.train.Model."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import mindspore as ms
from mindspore import nn
from mindspore.communication import GlobalComm
from mindspore.train import Callback

from model_zoo.common import environment
from model_zoo.common.checkpoint.files import METRICS_FILE, STATE_FILE, Position
from model_zoo.common.checkpoint.resume import Start, start_of
from model_zoo.common.checkpoint.state import load_state
from model_zoo.common.checkpoint.writer import (
    CheckpointWriter,
    StepCounters,
    StopOnSignal,
    weights_to_evaluate,
)
from model_zoo.common.curves import CURVES_FILE, draw_curves
from model_zoo.common.data.pipelines import (
    AnyDataSet,
    check_batch_size,
    evaluation_batches,
    load_data,
    training_batches,
)
from model_zoo.common.distribution import require_equal_on_all_ranks, set_device, sum_over_ranks, weight_bytes
from model_zoo.common.epoch_dataset import EpochDataset
from model_zoo.common.factory import TrainingComponents, build
from model_zoo.common.interruption import StopSignals
from model_zoo.common.metrics_log import CurvatureLog, MetricsLog, MetricsLogState
from model_zoo.common.networks import parameter_count
from model_zoo.common.options.networks import METRIC_OF_NETWORK
from model_zoo.common.options.precision import PrecisionOptions
from model_zoo.common.precision import check_step
from model_zoo.common.recipe import Recipe
from model_zoo.common.run_description import (
    DATA,
    KERNELS,
    OPTIONS,
    RANKS,
    RESUMED,
    describe_broken_images,
    describe_run,
    describe_section,
    describe_sizes,
    headline_metric,
)
from model_zoo.common.run_folder import begin, failures_told, finish, owned
from model_zoo.common.run_options import RunOptions
from ms_kfac import kernels
from ms_kfac.parallel import average_moving_statistics
from ms_kfac.train import ProgressBar


def start_mindspore(recipe: Recipe, device: str) -> str:
    """Sets the device, the mode and the seeds.

    Args:
        recipe: the recipe that gives the mode and the seed.
        device: "CPU", "GPU" or "Ascend".

    Returns:
        One line that describes the mode and the device.

    Raises:
        UsageError: MindSpore can't run on the device here.
    """
    line = environment.limit_onednn(device)
    if not GlobalComm.INITED:
        # A distributed run has set its device already, and it can't be set twice.
        set_device(device)
    ms.set_context(mode=ms.GRAPH_MODE if recipe.mode == "graph" else ms.PYNATIVE_MODE)
    ms.set_seed(recipe.seed)
    return f"{recipe.mode} mode, {line}"


def create_training_dataset(
    recipe: Recipe, data: AnyDataSet, options: RunOptions, resume_from: Position | None
) -> EpochDataset:
    """Creates the training data set, starting at the position of the run.

    Args:
        recipe: the recipe that gives the data options and the seed.
        data: the data set.
        options: the run options, with this process's part of every batch.
        resume_from: the position of a resumed run; None for a new run.

    Returns:
        The data set for mindspore.train.Model.
    """

    def pipeline(epoch: int, skip: int) -> Any:
        return training_batches(
            data, recipe.data, seed=recipe.seed, epoch=epoch, shard=options.shard, skip=skip
        )

    first = pipeline(0, 0)
    epoch, skip = (0, 0) if resume_from is None else (resume_from.epoch, resume_from.step_of_epoch)
    # The batch size of all processes, because images per second are reported over all of them.
    return EpochDataset(pipeline, first.get_dataset_size(), recipe.data.batch_size, epoch, skip)


def create_evaluation(
    recipe: Recipe, data: AnyDataSet, parts: TrainingComponents, options: RunOptions
) -> Callable[[], dict[str, float]]:
    """Creates the function that evaluates a model on the splits of a recipe.

    Args:
        recipe: the recipe that names the splits.
        data: the data set.
        parts: the network and the model.
        options: the run options, with this process's part of every batch.

    Returns:
        A function that returns the metrics by name, such as "test_accuracy".
    """
    evaluated = {
        split: evaluation_batches(data, split, recipe.data, shard=options.shard) for split in recipe.evaluate
    }

    def evaluate() -> dict[str, float]:
        if recipe.parallel.batch_norm == "averaged":
            average_moving_statistics(parts.network)
        return {
            f"{split}_{name}": float(value)
            for split, rows in evaluated.items()
            for name, value in parts.model.eval(rows, dataset_sink_mode=False).items()
        }

    return evaluate


def create_callbacks(
    recipe: Recipe,
    options: RunOptions,
    parts: TrainingComponents,
    evaluate: Callable[[], dict[str, float]],
    start: Start,
    signals: StopSignals,
) -> tuple[MetricsLog, list[Callback]]:
    """Creates the metrics log and the callbacks of a run.

    Args:
        recipe: the recipe.
        options: the run options.
        parts: the network and its loss.
        evaluate: evaluates the model; called after each epoch.
        start: where the run starts.
        signals: tells when to stop.

    Returns:
        The metrics log, and all callbacks in order.
    """
    metrics_log = MetricsLog(
        options.output / METRICS_FILE if options.shard.rank == 0 else None,
        parts.loss_fn,
        METRIC_OF_NETWORK[recipe.network.name],
        evaluate,
        options.log_every,
        None if start.position is None else MetricsLogState(**start.position.journal),
        start.metrics_log,
    )
    # A bar asks for the metrics by time, but their reduction needs all processes at the same step.
    show_bar = None if options.progress and options.shard.size == 1 else False
    bar = ProgressBar(figures=metrics_log.running_metrics, bar=show_bar)
    callbacks: list[Callback] = [metrics_log, bar]
    if start.position is not None:
        callbacks.insert(0, StepCounters(start.position.step, recipe.epochs))
    writer = None
    if options.checkpoint_every is not None:
        writer = CheckpointWriter(recipe, options, parts.network, metrics_log, start.resumed_after)
        callbacks.append(writer)
    callbacks.append(StopOnSignal(signals, options, writer))
    return metrics_log, callbacks


def create_monitor(options: RunOptions, optimizer: nn.Optimizer, metrics_log: MetricsLog) -> list[Callback]:
    """Creates the callback that writes the optimizer's diagnostics to the metrics log.

    Args:
        options: the run options.
        optimizer: the optimizer.
        metrics_log: the metrics log.

    Returns:
        The callback; nothing if the options ask for none, or on ranks other than 0.
    """
    if options.monitor_every is None or options.shard.rank > 0:
        return []
    if not hasattr(optimizer, "diagnostics"):
        # Not refused, because --compare passes the option on to first-order optimizers, too.
        print(f"--monitor-every: {type(optimizer).__name__} has no curvature to write")
        return []
    return [CurvatureLog(metrics_log, options.monitor_every, options.monitor_eigenvalues)]


def train_recipe(
    recipe: Recipe, options: RunOptions, signals: StopSignals | None = None
) -> list[dict[str, Any]]:
    """Trains a recipe and writes metrics.jsonl, run.json, network.ckpt and curves.png.

    Args:
        recipe: the recipe; for a resumed run, its stored recipe.
        options: the run options.
        signals: the signals that stop the run. Default: None, which leaves them to the caller.

    Returns:
        The epoch objects of metrics.jsonl.

    Raises:
        DataError: the data can't be read, or an epoch has no batch.
        CheckpointError: the run can't be resumed, or the folder holds another run.
        UsageError: another process trains in the folder.
        RunFailedError: the operating system refused to write during training.
        Interrupted: a signal arrived.
    """
    with owned(options):
        return _train(recipe, options, signals or StopSignals())


def _train(recipe: Recipe, options: RunOptions, signals: StopSignals) -> list[dict[str, Any]]:
    data = load_data(recipe.data, options.data_dir)
    check_batch_size(data, recipe.data, options.shard)
    shard = options.shard
    machine = start_mindspore(recipe, options.device)
    start = start_of(options, partial(sum_over_ranks, shard=shard))
    description = describe_run(options.name, recipe, options.device)
    description[DATA] = data.describe()
    description[OPTIONS], description[RANKS] = options.stored(), shard.size
    description[RESUMED] = start.resumed_after

    batches = create_training_dataset(recipe, data, options, start.position)
    steps = batches.get_dataset_size()
    check_step(recipe, steps)
    parts = build(recipe, data.classes, steps, shard)
    network, optimizer = parts.network, parts.optimizer
    print(f"{options.name}: {describe_section(recipe.network)}, {parameter_count(network):,} weights")
    print(f"optimizer: {describe_section(recipe.optimizer)}; schedule: {describe_section(recipe.schedule)}")
    if recipe.precision != PrecisionOptions() or recipe.accumulation_steps > 1:
        scale = f"amp level {recipe.precision.amp_level}, loss scale {recipe.precision.loss_scale}"
        print(f"precision: {scale}; batches per step: {recipe.accumulation_steps}")
    print(describe_sizes(description[DATA]))
    print(machine)
    if hasattr(optimizer, "summary"):
        print(optimizer.summary())

    done = 0
    if start.checkpoint is not None and start.position is not None:
        load_state(parts.model.train_network, start.checkpoint / STATE_FILE)
        print(f"resumed after {start.position.step:,} steps from {start.checkpoint}")
        done = start.position.epoch
    require_equal_on_all_ranks(
        "the recipe and the steps done", repr((recipe, start.resumed_after)).encode(), shard
    )
    require_equal_on_all_ranks("the weights", weight_bytes(network), shard)
    evaluate = create_evaluation(recipe, data, parts, options)
    metrics_log, callbacks = create_callbacks(recipe, options, parts, evaluate, start, signals)
    # In front of the writer of checkpoints, which copies the log.
    after_log = callbacks.index(metrics_log) + 1
    callbacks[after_log:after_log] = create_monitor(options, optimizer, metrics_log)
    every = f"at a step that {options.log_every} divides"
    with signals.deferred(every) if shard.size > 1 else signals.deferred():
        begin(options, start.checkpoint, description, trains=done < recipe.epochs)
        with failures_told(options):
            metrics_log.open()
            if done < recipe.epochs:
                parts.model.train(
                    recipe.epochs, batches, callbacks, dataset_sink_mode=False, initial_epoch=done
                )

            # Updated at the end, because each process finds broken images only when it reads them, and
            # kernels warn when they run.
            description[DATA], description[KERNELS] = data.describe(), kernels.status().splitlines()
            for line in describe_broken_images(description[DATA]):
                print(line)
            if shard.rank > 0:
                return metrics_log.epochs
            if hasattr(optimizer, "refreshes"):
                description["refreshes"] = optimizer.refreshes()
            draw_curves(
                {recipe.optimizer.name: options.output},
                headline_metric(recipe),
                options.name,
                options.output / CURVES_FILE,
            )
            with weights_to_evaluate(optimizer):
                finish(options, network, description)
    return metrics_log.epochs
