"""The record of a run: metrics.jsonl, and the figures that the progress bar shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

from mindspore.train import Callback

from model_zoo.common.objectives import RunningObjective

METRICS_FILE = "metrics.jsonl"


class TrainingClock:
    """Seconds of training: a stopwatch that stands still during evaluation.

    Args:
        before: what it shows at first.
    """

    def __init__(self, before: float = 0.0) -> None:
        """Stands."""
        self._before = before
        self._started: float | None = None

    def start(self) -> None:
        """Lets the clock run."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Lets the clock stand."""
        self._before, self._started = self.seconds, None

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Lets the clock stand while a `with` block runs."""
        ran = self._started is not None
        self.stop()
        try:
            yield
        finally:
            if ran:
                self.start()

    @property
    def seconds(self) -> float:
        """What the clock shows."""
        return self._before + (time.perf_counter() - self._started if self._started is not None else 0.0)


@dataclass
class JournalState:
    """What a journal needs to go on where another process stopped.

    Attributes:
        bytes_written: length of metrics.jsonl.
        seconds: what the clock shows.
        epoch_start: what it showed when the epoch began.
        first_step_seconds: seconds of the run's first step.
        untimed_steps: first steps of a process in this epoch, which compile.
        untimed_seconds: the seconds they took.
        logged_steps: steps of this epoch that step objects cover.
        logged_loss: the sum of their losses.
        evaluated: the last evaluation.
    """

    bytes_written: int = 0
    seconds: float = 0.0
    epoch_start: float = 0.0
    first_step_seconds: float = 0.0
    untimed_steps: int = 0
    untimed_seconds: float = 0.0
    logged_steps: int = 0
    logged_loss: float = 0.0
    evaluated: dict[str, float] = field(default_factory=dict)


class Journal(Callback):
    """Writes metrics.jsonl: one JSON object every `log_every` steps and one an epoch.

    Every object holds `kind` ("step" or "epoch"), `epoch`, `step` and `seconds` (of training, with
    compilation, without evaluation and the writing of checkpoints). A step object adds `running_loss`, the
    mean over the steps since the last step object of the epoch. An epoch object adds the means over its
    steps, in training mode and with augmentation (`running_loss`, `running_<figure>`), what `evaluate`
    returns, `epoch_seconds`, `images_per_second` (without first steps of a process, which compile) and
    `first_step_seconds`.

    Args:
        path: the file to write; an older one is replaced, or cut to what `resumed` says. None writes nothing.
        objective: the loss function of the training.
        figure: "accuracy" or "reconstruction_error".
        evaluate: called after each epoch; its result goes into the epoch's object.
        log_every: steps between two step objects.
        resumed: where the run stood that this one continues. Default: None, a run from its beginning.
    """

    def __init__(
        self,
        path: Path | None,
        objective: RunningObjective,
        figure: str,
        evaluate: Callable[[], dict[str, float]],
        log_every: int,
        resumed: JournalState | None = None,
    ) -> None:
        """Writes nothing yet."""
        super().__init__()
        self._path = path
        self._objective = objective
        self._figure = figure
        self._evaluate = evaluate
        self._log_every = log_every
        self._state = resumed or JournalState()
        self.clock = TrainingClock(self._state.seconds)
        self._steps_of_epoch = 0
        self._compiled = False
        self.epochs: list[dict[str, Any]] = []

    def state(self) -> JournalState:
        """Where the journal stands."""
        return replace(
            self._state,
            bytes_written=0 if self._path is None else self._path.stat().st_size,
            seconds=self.clock.seconds,
            evaluated=dict(self._state.evaluated),
        )

    def figures(self) -> dict[str, float]:
        """For the progress bar: the running figure of this epoch and the last evaluation."""
        steps = max(self._steps_of_epoch, 1)
        _, figure_sum = self._objective.sums()
        running = (
            {f"running {self._figure}".replace("_", " "): figure_sum / steps} if self._steps_of_epoch else {}
        )
        shown = {
            name.replace("_", " "): value
            for name, value in self._state.evaluated.items()
            if not name.endswith("_loss")
        }
        return {**running, **shown}

    def open(self) -> None:
        """Starts the file, or cuts off what a killed run wrote after its checkpoint."""
        if self._path is None:
            return
        with self._path.open("ab") as file:
            file.truncate(self._state.bytes_written)
        lines = [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        self.epochs = [line for line in lines if line["kind"] == "epoch"]

    def on_train_begin(self, run_context: Any) -> None:
        """Starts the clock."""
        self.clock.start()

    def on_train_epoch_begin(self, run_context: Any) -> None:
        """Starts the sums of an epoch, or goes on with those of a resumed one."""
        parameters = run_context.original_args()
        # Counted from the epoch's first step, though a resumed process may begin in the middle.
        self._steps_of_epoch = parameters.cur_step_num % parameters.batch_num
        self._steps_before = parameters.cur_step_num - self._steps_of_epoch
        self.clock.start()
        if self._steps_of_epoch == 0:
            self._objective.reset()
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
        # One step, or with dataset_sink_mode=True as many as have been sunk.
        before, self._steps_of_epoch = self._steps_of_epoch, parameters.cur_step_num - self._steps_before
        if not self._compiled:
            self._compiled = True
            self._objective.sums()  # Waits for the step to end.
            seconds = self.clock.seconds - state.seconds
            state.untimed_steps += self._steps_of_epoch - before
            state.untimed_seconds += seconds
            state.first_step_seconds = state.first_step_seconds or seconds
        last_multiple = parameters.cur_step_num // self._log_every * self._log_every
        if last_multiple <= self._steps_before + before:
            return
        loss_sum, _ = self._objective.sums()
        loss = (loss_sum - state.logged_loss) / (self._steps_of_epoch - state.logged_steps)
        state.logged_steps, state.logged_loss = self._steps_of_epoch, loss_sum
        self._write("step", parameters, {"running_loss": loss})

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Evaluates, with the clock standing, and writes the epoch's object."""
        parameters = run_context.original_args()
        state = self._state
        loss_sum, figure_sum = self._objective.sums()
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
                    f"running_{self._figure}": figure_sum / self._steps_of_epoch,
                    **state.evaluated,
                    "epoch_seconds": epoch_seconds,
                    "images_per_second": timed_steps
                    * parameters.train_dataset.get_batch_size()
                    / timed_seconds,
                    "first_step_seconds": state.first_step_seconds,
                },
            )
        )

    def _write(self, kind: str, parameters: Any, values: dict[str, float]) -> dict[str, Any]:
        line = {
            "kind": kind,
            "epoch": parameters.cur_epoch_num,
            "step": parameters.cur_step_num,
            "seconds": round(self.clock.seconds, 4),
            **values,
        }
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return line
