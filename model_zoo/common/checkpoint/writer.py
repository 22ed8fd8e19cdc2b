"""Callbacks that write checkpoints, stop on a signal, and restore the step counters of a resumed run."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
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
from model_zoo.common.checkpoint.resume import how_to_resume, recipe_to_json
from model_zoo.common.checkpoint.state import save_state
from model_zoo.common.distribution import sum_over_ranks
from model_zoo.common.errors import Interrupted
from model_zoo.common.interruption import SIGNALS, StopSignals
from model_zoo.common.metrics_log import MetricsLog
from model_zoo.common.recipe import Recipe
from model_zoo.common.run_options import RunOptions

_SECONDS_AFTER_RANK_0 = 2


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
        metrics_log: its state and its file are stored in the checkpoint, and its clock is paused during the
            write.
        resumed_after: the steps after which the run was resumed. Default: none.
    """

    def __init__(
        self,
        recipe: Recipe,
        options: RunOptions,
        network: Cell,
        metrics_log: MetricsLog,
        resumed_after: Sequence[int] = (),
    ) -> None:
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
        self._resumed_after = list(resumed_after)

    def on_train_step_end(self, run_context: Any) -> None:
        """Writes a checkpoint when one is due in the middle of an epoch."""
        parameters = run_context.original_args()
        # At the end of an epoch, the checkpoint waits for the evaluation: see on_train_epoch_end.
        if parameters.cur_step_num % parameters.batch_num and self._interval.is_due(
            "step", parameters.cur_step_num
        ):
            self.write(parameters)

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Writes a checkpoint when one is due after an epoch."""
        parameters = run_context.original_args()
        epoch, step = parameters.cur_epoch_num, parameters.cur_step_num
        last = epoch == parameters.epoch_num
        if last or self._interval.is_due("epoch", epoch) or self._interval.is_due("step", step):
            self.write(parameters)

    def write(self, parameters: Any) -> None:
        """Writes a checkpoint after the current step, unless there is one.

        Args:
            parameters: the arguments of the run, from `run_context.original_args()`.
        """
        if parameters.cur_step_num in steps_in(self._folder):
            return
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
                self._resumed_after,
            )
            with new_checkpoint(self._folder, position) as folder:
                save_state(parameters.train_network, folder / STATE_FILE)
                with weights_to_evaluate(parameters.optimizer):
                    ms.save_checkpoint(self._network, str(folder / NETWORK_FILE))
                self._metrics_log.copy_to(folder)
            remove_checkpoints(self._folder, steps_in(self._folder)[: -self._keep])


class StopOnSignal(Callback):
    """Ends training after the step in which a signal arrived; place it last.

    After the last step of an epoch, the evaluation is awaited. Several processes agree on the step, so they
    stop where they meet anyway: at a step that is logged. None ends before all have written their
    checkpoint, because msrun then kills the others.

    Args:
        signals: tells whether a signal has arrived.
        options: the run options.
        writer: writes the last checkpoint; None if the run writes none.
    """

    def __init__(self, signals: StopSignals, options: RunOptions, writer: CheckpointWriter | None) -> None:
        """Stores the arguments."""
        super().__init__()
        self._signals = signals
        self._options = options
        self._writer = writer

    def on_train_step_end(self, run_context: Any) -> None:
        """Stops in the middle of an epoch."""
        parameters = run_context.original_args()
        alone = self._options.shard.size == 1
        meets = alone or parameters.cur_step_num % self._options.log_every == 0
        if meets and parameters.cur_step_num % parameters.batch_num:
            self._stop_if_received(parameters)

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Stops after an epoch."""
        self._stop_if_received(run_context.original_args())

    def _stop_if_received(self, parameters: Any) -> None:
        shard = self._options.shard
        flags = [float(self._signals.received == number) for number in SIGNALS]
        received = [number for number, flag in zip(SIGNALS, sum_over_ranks(flags, shard)) if flag]
        if received:
            self._stop(received[0], parameters)

    def _stop(self, received: signal.Signals, parameters: Any) -> None:
        if self._writer is not None:
            self._writer.write(parameters)
        sum_over_ranks([0.0], self._options.shard)
        if self._options.shard.rank > 0:
            # Rank 0 ends first: it has to tell how to resume.
            time.sleep(_SECONDS_AFTER_RANK_0)
        raise Interrupted(
            received,
            f"stopped by {received.name} after step {parameters.cur_step_num:,}: "
            f"{how_to_resume(self._options)}.",
        )
