"""The record of a run: metrics.jsonl, and the figures that the progress bar shows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable

from mindspore.train import Callback

from model_zoo.common.objectives import RunningObjective

METRICS_FILE = "metrics.jsonl"


class TrainingClock:
    """Seconds of training: a stopwatch that stands still during evaluation."""

    def __init__(self) -> None:
        """Stands at zero."""
        self._before = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Lets the clock run."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Lets the clock stand."""
        self._before, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        """What the clock shows."""
        return self._before + (time.perf_counter() - self._started if self._started is not None else 0.0)


class Journal(Callback):
    """Writes metrics.jsonl: one JSON object every `log_every` steps and one an epoch.

    Every object holds `kind` ("step" or "epoch"), `epoch`, `step` and `seconds` (of training, with
    compilation and without evaluation). A step object adds `running_loss`, the mean over the steps since the
    last step object of the epoch. An epoch object adds the means over its steps, in training mode and with
    augmentation (`running_loss`, `running_<figure>`), what `evaluate` returns, `epoch_seconds`,
    `images_per_second` (without the first step, which compiles) and `first_step_seconds`.

    Args:
        path: the file to write; an older one is replaced.
        objective: the loss function of the training.
        figure: "accuracy" or "reconstruction_error".
        evaluate: called after each epoch; its result goes into the epoch's object.
        log_every: steps between two step objects.
    """

    def __init__(
        self,
        path: Path,
        objective: RunningObjective,
        figure: str,
        evaluate: Callable[[], dict[str, float]],
        log_every: int,
    ) -> None:
        """Opens nothing yet."""
        super().__init__()
        self._path = path
        self._objective = objective
        self._figure = figure
        self._evaluate = evaluate
        self._log_every = log_every
        self._clock = TrainingClock()
        self._evaluated: dict[str, float] = {}
        self._first_step_seconds = 0.0
        self._epoch_start = 0.0
        self._first_step_of_epoch = 0
        self._logged_steps = 0
        self._logged_loss = 0.0
        self.epochs: list[dict[str, Any]] = []

    def figures(self) -> dict[str, float]:
        """For the progress bar: the running figure of this epoch and the last evaluation."""
        steps = max(self._steps_of_epoch, 1)
        _, figure_sum = self._objective.sums()
        running = (
            {f"running {self._figure}".replace("_", " "): figure_sum / steps} if self._steps_of_epoch else {}
        )
        shown = {
            name.replace("_", " "): value
            for name, value in self._evaluated.items()
            if not name.endswith("_loss")
        }
        return {**running, **shown}

    def on_train_begin(self, run_context: Any) -> None:
        """Starts the file and the clock."""
        self._path.write_text("", encoding="utf-8")
        self._steps_of_epoch = 0
        self._clock.start()

    def on_train_epoch_begin(self, run_context: Any) -> None:
        """Starts the sums of an epoch."""
        self._objective.reset()
        self._steps_of_epoch = 0
        self._logged_steps, self._logged_loss = 0, 0.0
        self._clock.start()
        self._epoch_start = self._clock.seconds

    def on_train_step_end(self, run_context: Any) -> None:
        """Writes a step object when one is due."""
        parameters = run_context.original_args()
        self._steps_of_epoch += 1
        if parameters.cur_step_num == 1:
            self._objective.sums()  # Waits for the step to end.
            self._first_step_seconds = self._clock.seconds
        if parameters.cur_step_num % self._log_every:
            return
        loss_sum, _ = self._objective.sums()
        loss = (loss_sum - self._logged_loss) / (self._steps_of_epoch - self._logged_steps)
        self._logged_steps, self._logged_loss = self._steps_of_epoch, loss_sum
        self._write("step", parameters, {"running_loss": loss})

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Evaluates, with the clock standing, and writes the epoch's object."""
        parameters = run_context.original_args()
        loss_sum, figure_sum = self._objective.sums()
        self._clock.stop()
        epoch_seconds = self._clock.seconds - self._epoch_start
        timed_steps, timed_seconds = self._steps_of_epoch, epoch_seconds
        if parameters.cur_step_num == self._steps_of_epoch and self._steps_of_epoch > 1:
            timed_steps, timed_seconds = timed_steps - 1, epoch_seconds - self._first_step_seconds
        self._evaluated = self._evaluate()
        self.epochs.append(
            self._write(
                "epoch",
                parameters,
                {
                    "running_loss": loss_sum / self._steps_of_epoch,
                    f"running_{self._figure}": figure_sum / self._steps_of_epoch,
                    **self._evaluated,
                    "epoch_seconds": epoch_seconds,
                    "images_per_second": timed_steps
                    * parameters.train_dataset.get_batch_size()
                    / timed_seconds,
                    "first_step_seconds": self._first_step_seconds,
                },
            )
        )

    def _write(self, kind: str, parameters: Any, values: dict[str, float]) -> dict[str, Any]:
        line = {
            "kind": kind,
            "epoch": parameters.cur_epoch_num,
            "step": parameters.cur_step_num,
            "seconds": round(self._clock.seconds, 4),
            **values,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return line
