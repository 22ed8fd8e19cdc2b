"""A progress bar for mindspore.train.Model.train."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Callable, TextIO

from mindspore import Tensor
from mindspore.train import Callback
from tqdm import tqdm


def _scalar(value: Any) -> float:
    """The loss among the outputs of a training step; with loss scaling they are (loss, overflow, scale)."""
    if isinstance(value, (tuple, list)):
        value = value[0]
    if isinstance(value, Tensor):
        value = value.asnumpy()
    return float(value)


def _clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar(Callback):
    """Shows loss, further figures, images a second and the time left, and writes a line an epoch.

    On a terminal a bar runs along the whole training; elsewhere there are only the lines. The loss is fetched
    from the device every `every` steps and at the end of an epoch, so that the other steps don't wait for it.
    Place it after callbacks that evaluate at the end of an epoch, so that its line shows their results; their
    time is not counted into images a second. The first epoch's line counts compilation.

    Args:
        figures: called whenever the display changes; what it returns is shown after the loss.
        every: steps between two looks at the loss.
        bar: True or False to draw the bar or not; None draws it where `stream` is a terminal.
        stream: where to draw the bar; standard error unless given.
        lines: where to write the line of an epoch; standard output unless given.

    Raises:
        TypeError: `every` is no int.
        ValueError: `every` is below 1.

    Examples:
        >>> model.train(10, dataset, callbacks=[ProgressBar()], dataset_sink_mode=False)
    """

    def __init__(
        self,
        figures: Callable[[], Mapping[str, float]] | None = None,
        *,
        every: int = 10,
        bar: bool | None = None,
        stream: TextIO | None = None,
        lines: TextIO | None = None,
    ) -> None:
        """Draws nothing yet."""
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int):
            raise TypeError(f"every must be an int of at least 1, but is {every!r}")
        if every < 1:
            raise ValueError(f"every must be an int of at least 1, but is {every!r}")
        self._figures = figures
        self._every = every
        self._stream = stream if stream is not None else sys.stderr
        self._lines = lines if lines is not None else sys.stdout
        self._drawn = self._stream.isatty() if bar is None else bar
        self._bar: Any = None
        self._loss = float("nan")
        self._training_start = self._epoch_start = self._epoch_stop = 0.0
        self._steps_before = self._step_of_epoch = 0

    def on_train_begin(self, run_context: Any) -> None:
        """Draws an empty bar for the whole training."""
        parameters = run_context.original_args()
        self._batch = parameters.train_dataset.get_batch_size()
        self._total = parameters.epoch_num * parameters.batch_num
        self._training_start = time.perf_counter()
        # Not 0 where a callback before this one has set it, because the training continues another.
        self._done_before = parameters.cur_step_num
        self._bar = tqdm(
            initial=self._done_before * self._batch,
            total=self._total * self._batch,
            unit=" images",
            disable=not self._drawn,
            file=self._stream,
            dynamic_ncols=True,
            leave=False,
        )

    def on_train_epoch_begin(self, run_context: Any) -> None:
        """Names the epoch before the bar."""
        parameters = run_context.original_args()
        self._first_step = self._step_of_epoch = parameters.cur_step_num % parameters.batch_num
        self._steps_before = parameters.cur_step_num - self._first_step
        self._epoch_start = time.perf_counter()
        self._bar.set_description(f"epoch {parameters.cur_epoch_num}/{parameters.epoch_num}")

    def on_train_step_end(self, run_context: Any) -> None:
        """Moves the bar on, and now and then looks at the loss."""
        parameters = run_context.original_args()
        step_of_epoch = parameters.cur_step_num - self._steps_before
        # One, or with dataset_sink_mode=True as many as have been sunk.
        steps = step_of_epoch - self._step_of_epoch
        last = step_of_epoch == parameters.batch_num
        if last or step_of_epoch // self._every > self._step_of_epoch // self._every:
            self._loss = _scalar(parameters.net_outputs)
            if self._drawn:
                self._bar.set_postfix_str(self._shown(", "), refresh=False)
        # After the loss has been waited for, so that the epoch's steps have really ended.
        self._epoch_stop = time.perf_counter()
        self._step_of_epoch = step_of_epoch
        self._bar.update(steps * self._batch)

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Writes the line of the epoch."""
        parameters = run_context.original_args()
        steps = parameters.cur_step_num - self._steps_before - self._first_step
        seconds = self._epoch_stop - self._epoch_start
        left = (
            (time.perf_counter() - self._training_start)
            / (parameters.cur_step_num - self._done_before)
            * (self._total - parameters.cur_step_num)
        )
        line = (
            f"epoch {parameters.cur_epoch_num}/{parameters.epoch_num}  {self._shown('  ')}  "
            f"{steps * self._batch / seconds:.0f} images/s  {seconds:.1f} s  {_clock(left)} left"
        )
        with tqdm.external_write_mode(file=self._lines):
            print(line, file=self._lines, flush=True)

    def on_train_end(self, run_context: Any) -> None:
        """Clears the bar."""
        self._bar.close()

    def _shown(self, separator: str) -> str:
        figures = dict(self._figures()) if self._figures is not None else {}
        return separator.join(
            f"{name} {value:.4g}" for name, value in {"loss": self._loss, **figures}.items()
        )
