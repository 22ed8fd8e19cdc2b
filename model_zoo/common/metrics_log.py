"""Writes metrics.jsonl and provides the metrics of the progress bar."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

from mindspore.train import Callback

from model_zoo.common.durable_files import write_bytes
from model_zoo.common.json_lines import line_of, values_of
from model_zoo.common.losses import RunningLoss
from ms_kfac import CurvatureMonitor


class TrainingClock:
    """A stopwatch of training seconds, paused during evaluation.

    Args:
        before: the initial value.
    """

    def __init__(self, before: float = 0.0) -> None:
        """Starts paused."""
        self._before = before
        self._started: float | None = None

    def start(self) -> None:
        """Starts the clock."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Pauses the clock."""
        self._before, self._started = self.seconds, None

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Pauses the clock inside a `with` block."""
        ran = self._started is not None
        self.stop()
        try:
            yield
        finally:
            if ran:
                self.start()

    @property
    def seconds(self) -> float:
        """The elapsed seconds."""
        return self._before + (time.perf_counter() - self._started if self._started is not None else 0.0)


@dataclass
class MetricsLogState:
    """The state that a resumed run needs to continue the metrics log.

    Attributes:
        seconds: the clock's value.
        epoch_start: the clock's value at the start of the epoch.
        first_step_seconds: seconds of the run's first step.
        untimed_steps: first steps of a process in this epoch, which include compilation.
        untimed_seconds: the seconds of these steps.
        logged_steps: steps of this epoch covered by step objects.
        logged_loss: the sum of their losses.
        evaluated: the last evaluation.
    """

    seconds: float = 0.0
    epoch_start: float = 0.0
    first_step_seconds: float = 0.0
    untimed_steps: int = 0
    untimed_seconds: float = 0.0
    logged_steps: int = 0
    logged_loss: float = 0.0
    evaluated: dict[str, float] = field(default_factory=dict)


class MetricsLog(Callback):
    """Writes metrics.jsonl: one JSON object every `log_every` steps and one per epoch.

    Every object holds `kind`, `epoch`, `step` and `seconds`. The seconds of training include compilation, but
    neither evaluation nor checkpoint writing. An object of the kind "step" adds `running_loss`, the mean
    since the last step object of the epoch. An "epoch" object adds the means over its steps (`running_loss`,
    `running_<metric>`; training mode, augmented images) and the results of `evaluate`. It also adds
    `epoch_seconds`, `first_step_seconds` and `images_per_second` (for a text, windows), which excludes the
    first step of a process because that step compiles. `CurvatureLog` adds "curvature" objects. NaN and Inf
    are written as null.

    Args:
        path: the file to write. An existing file is replaced. None writes nothing.
        loss_fn: the loss function of the training.
        metric: the network's metric, such as "accuracy".
        evaluate: called after each epoch; its results are added to the epoch object.
        log_every: steps between two step objects.
        resumed: the state of the resumed run. Default: None, a new run.
        written: what the resumed run had written at that state. Default: b"".
    """

    def __init__(
        self,
        path: Path | None,
        loss_fn: RunningLoss,
        metric: str,
        evaluate: Callable[[], dict[str, float]],
        log_every: int,
        resumed: MetricsLogState | None = None,
        written: bytes = b"",
    ) -> None:
        """Stores the arguments; `open` creates the file."""
        super().__init__()
        self._path = path
        self._loss_fn = loss_fn
        self._metric = metric
        self._evaluate = evaluate
        self._log_every = log_every
        self._state = resumed or MetricsLogState()
        self.clock = TrainingClock(self._state.seconds)
        self._steps_of_epoch = 0
        self._compiled = False
        self._written = written
        lines = map(values_of, written.splitlines())
        self.epochs: list[dict[str, Any]] = [line for line in lines if line["kind"] == "epoch"]

    def state(self) -> MetricsLogState:
        """The current state, for a checkpoint."""
        return replace(
            self._state,
            seconds=self.clock.seconds,
            evaluated=dict(self._state.evaluated),
        )

    def running_metrics(self) -> dict[str, float]:
        """Metrics for the progress bar: the running metric of this epoch and the last evaluation."""
        steps = max(self._steps_of_epoch, 1)
        _, metric_sum = self._loss_fn.sums()
        running = (
            {f"running {self._metric}".replace("_", " "): metric_sum / steps} if self._steps_of_epoch else {}
        )
        shown = {
            name.replace("_", " "): value
            for name, value in self._state.evaluated.items()
            if not name.endswith("_loss")
        }
        return {**running, **shown}

    def open(self) -> None:
        """Creates the file, without what a killed run wrote after its last checkpoint."""
        if self._path is not None:
            write_bytes(self._path, self._written)

    def copy_to(self, folder: Path) -> None:
        """Copies the file to a folder, if there is one."""
        if self._path is not None:
            shutil.copyfile(self._path, folder / self._path.name)

    def add_curvature(self, record: Mapping[str, Any]) -> None:
        """Writes a record of `ms_kfac.CurvatureMonitor`."""
        self._write("curvature", self._parameters, {k: v for k, v in record.items() if k != "step"})

    def on_train_begin(self, run_context: Any) -> None:
        """Starts the clock."""
        self._parameters = run_context.original_args()
        self.clock.start()

    def on_train_epoch_begin(self, run_context: Any) -> None:
        """Resets the sums at the start of an epoch; keeps them if the run resumes within it."""
        parameters = run_context.original_args()
        # Counted from the epoch's first step, even if the process resumes in the middle of it.
        self._steps_of_epoch = parameters.cur_step_num % parameters.batch_num
        self._steps_before = parameters.cur_step_num - self._steps_of_epoch
        self.clock.start()
        if self._steps_of_epoch == 0:
            self._loss_fn.reset()
            self._state = replace(
                self._state,
                logged_steps=0,
                logged_loss=0.0,
                untimed_steps=0,
                untimed_seconds=0.0,
                epoch_start=self.clock.seconds,
            )

    def on_train_step_end(self, run_context: Any) -> None:
        """Writes a step object when one is due."""
        parameters = run_context.original_args()
        state = self._state
        # One step, or with dataset_sink_mode=True the number of sunk steps.
        before, self._steps_of_epoch = self._steps_of_epoch, parameters.cur_step_num - self._steps_before
        if not self._compiled:
            self._compiled = True
            self._loss_fn.sums()  # Waits for the device to finish the step.
            seconds = self.clock.seconds - state.seconds
            state.untimed_steps += self._steps_of_epoch - before
            state.untimed_seconds += seconds
            state.first_step_seconds = state.first_step_seconds or seconds
        last_multiple = parameters.cur_step_num // self._log_every * self._log_every
        if last_multiple <= self._steps_before + before:
            return
        loss_sum, _ = self._loss_fn.sums()
        loss = (loss_sum - state.logged_loss) / (self._steps_of_epoch - state.logged_steps)
        state.logged_steps, state.logged_loss = self._steps_of_epoch, loss_sum
        self._write("step", parameters, {"running_loss": loss})

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Evaluates with the clock paused and writes the epoch object."""
        parameters = run_context.original_args()
        state = self._state
        loss_sum, metric_sum = self._loss_fn.sums()
        self.clock.stop()
        epoch_seconds = self.clock.seconds - state.epoch_start
        timed_steps, timed_seconds = self._steps_of_epoch, epoch_seconds
        if self._steps_of_epoch > state.untimed_steps:
            timed_steps, timed_seconds = (
                timed_steps - state.untimed_steps,
                epoch_seconds - state.untimed_seconds,
            )
        state.evaluated = self._evaluate()
        self.epochs.append(
            self._write(
                "epoch",
                parameters,
                {
                    "running_loss": loss_sum / self._steps_of_epoch,
                    f"running_{self._metric}": metric_sum / self._steps_of_epoch,
                    **state.evaluated,
                    "epoch_seconds": epoch_seconds,
                    "images_per_second": timed_steps
                    * parameters.train_dataset.get_batch_size()
                    / timed_seconds,
                    "first_step_seconds": state.first_step_seconds,
                },
            )
        )

    def _write(self, kind: str, parameters: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        line = {
            "kind": kind,
            "epoch": parameters.cur_epoch_num,
            "step": parameters.cur_step_num,
            "seconds": round(self.clock.seconds, 4),
            **values,
        }
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line_of(line) + "\n")
        return line


class CurvatureLog(CurvatureMonitor):
    """Writes the optimizer's diagnostics to metrics.jsonl; place it between the log and the checkpoints.

    Args:
        metrics_log: the metrics log; its clock is paused while the curvature is read.
        interval: steps between two curvature objects.
        eigenvalues: whether they hold the extreme eigenvalues of the factors.
    """

    def __init__(self, metrics_log: MetricsLog, interval: int, eigenvalues: bool) -> None:
        """Stores the arguments."""
        super().__init__(interval, traces=True, eigenvalues=eigenvalues, write=None)
        self._metrics_log = metrics_log

    def take_record(self, step: int) -> dict[str, Any]:
        """Reads the optimizer and writes the object."""
        with self._metrics_log.clock.standing():
            record = super().take_record(step)
            self._metrics_log.add_curvature(record)
        return record
