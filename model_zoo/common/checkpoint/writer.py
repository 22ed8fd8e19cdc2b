"""Callbacks that write checkpoints and restore the step counters of a resumed run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import mindspore as ms
from mindspore.nn import Cell
from mindspore.train import Callback

from model_zoo.common.checkpoint.files import (
    NETWORK_FILE,
    STATE_FILE,
    Position,
    checkpoints_folder,
    new_checkpoint,
    remove_checkpoints,
    steps_in,
)
from model_zoo.common.checkpoint.resume import recipe_to_json
from model_zoo.common.checkpoint.state import save_state
from model_zoo.common.metrics_log import MetricsLog
from model_zoo.common.recipe import Recipe
from model_zoo.common.run_options import RunOptions


def weights_to_evaluate(optimizer: Any) -> AbstractContextManager[None]:
    """A context in which the network holds the averaged weights, if the optimizer keeps them."""
    if getattr(optimizer, "averages", False):
        averages: AbstractContextManager[None] = optimizer.averaged_weights()
        return averages
    return nullcontext()


class StepCounters(Callback):
    """Restores the step and epoch numbers of a resumed run; place it first.

    Args:
        step: completed steps of the run.
        epochs: total epochs of the run.
    """

    def __init__(self, step: int, epochs: int) -> None:
        """Stores the numbers."""
        super().__init__()
        self._step = step
        self._epochs = epochs

    def on_train_begin(self, run_context: Any) -> None:
        """Sets the numbers that the later callbacks read."""
        parameters = run_context.original_args()
        parameters.cur_step_num = self._step
        parameters.epoch_num = self._epochs


class CheckpointWriter(Callback):
    """Writes a checkpoint when one is due and at the end of training; place it after the metrics log.

    Args:
        recipe: the recipe of the run.
        options: the checkpoint interval, how many checkpoints to keep, and the output folder. With several
            processes one more is kept, because another process may still be writing the newest.
        network: the plain network.
        metrics_log: its state is stored in the checkpoint, and its clock is paused during the write.
    """

    def __init__(self, recipe: Recipe, options: RunOptions, network: Cell, metrics_log: MetricsLog) -> None:
        """Reads the options."""
        super().__init__()
        if options.checkpoint_every is None:
            raise ValueError("options.checkpoint_every: must be an interval, got None")
        self._interval = options.checkpoint_every
        self._ranks = options.shard.size
        self._keep = options.keep if self._ranks == 1 else options.keep + 1
        self._folder = checkpoints_folder(options.output, options.shard)
        self._recipe = recipe_to_json(recipe)
        self._options = options.stored()
        self._network = network
        self._metrics_log = metrics_log

    def on_train_step_end(self, run_context: Any) -> None:
        """Writes a checkpoint when one is due in the middle of an epoch."""
        parameters = run_context.original_args()
        # At the end of an epoch, the checkpoint waits for the evaluation: see on_train_epoch_end.
        if parameters.cur_step_num % parameters.batch_num and self._interval.is_due(
            "step", parameters.cur_step_num
        ):
            self._write(parameters)

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Writes a checkpoint when one is due after an epoch."""
        parameters = run_context.original_args()
        epoch, step = parameters.cur_epoch_num, parameters.cur_step_num
        last = epoch == parameters.epoch_num
        if last or self._interval.is_due("epoch", epoch) or self._interval.is_due("step", step):
            self._write(parameters)

    def _write(self, parameters: Any) -> None:
        with self._metrics_log.clock.standing():
            epoch, step_of_epoch = divmod(parameters.cur_step_num, parameters.batch_num)
            position = Position(
                epoch,
                step_of_epoch,
                parameters.cur_step_num,
                parameters.batch_num,
                self._ranks,
                asdict(self._metrics_log.state()),
                self._options,
                self._recipe,
            )
            with new_checkpoint(self._folder, position) as folder:
                save_state(parameters.train_network, folder / STATE_FILE)
                with weights_to_evaluate(parameters.optimizer):
                    ms.save_checkpoint(self._network, str(folder / NETWORK_FILE))
            remove_checkpoints(self._folder, steps_in(self._folder)[: -self._keep])
