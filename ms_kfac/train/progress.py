"""A progress bar for mindspore.train.Model.train."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Callable, TextIO

from mindspore import Tensor
from mindspore.train import Callback
from tqdm import tqdm

from ms_kfac.values import check_count


def _scalar(value: Any) -> float:
    """The loss from the outputs of a training step, which are (loss, overflow, scale) with loss scaling."""
    if isinstance(value, (tuple, list)):
        value = value[0]
    if isinstance(value, Tensor):
        value = value.asnumpy()
    return float(value)


def _clock(seconds: float) -> str:
    """Format seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar(Callback):
    """Shows loss, metrics, images per second and the remaining time, and prints one line per epoch.

    On a terminal, a bar covers the whole training. Elsewhere only the lines are printed. The loss is read
    from the device every ``every`` steps and at the end of an epoch. Other steps do not wait for it.

    Place this callback after callbacks that evaluate at the end of an epoch, so that its line shows their
    results. Images per second exclude the time of those callbacks. The first epoch includes compilation.

    Args:
        figures: returns the values to show after the loss, by name. It is called at each update of the
            display. Default: None, no values.
        every: number of steps between two reads of the loss. Default: 10.
        bar: whether to draw the bar. None draws it if ``stream`` is a terminal. Default: None.
        stream: the stream for the bar. Default: None, standard error.
        lines: the stream for the line of each epoch. Default: None, standard output.

    Raises:
        TypeError: if ``every`` is not an int.
        ValueError: if ``every`` is below 1.

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
        super().__init__()
        self._figures = figures
        self._every = check_count("every", every)
        self._stream = stream if stream is not None else sys.stderr
        self._lines = lines if lines is not None else sys.stdout
        self._drawn = self._stream.isatty() if bar is None else bar
        self._bar: Any = None
        self._loss = float("nan")
        self._training_start = self._epoch_start = self._epoch_stop = 0.0
        self._steps_before = self._step_of_epoch = 0

    def on_train_begin(self, run_context: Any) -> None:
        """Draw an empty bar for the whole training."""
        parameters = run_context.original_args()
        self._batch = parameters.train_dataset.get_batch_size()
        self._total = parameters.epoch_num * parameters.batch_num
        self._training_start = time.perf_counter()
        # Not 0 if an earlier callback has set it, to resume a training.
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
        """Show the epoch in front of the bar."""
        parameters = run_context.original_args()
        self._first_step = self._step_of_epoch = parameters.cur_step_num % parameters.batch_num
        self._steps_before = parameters.cur_step_num - self._first_step
        self._epoch_start = time.perf_counter()
        self._bar.set_description(f"epoch {parameters.cur_epoch_num}/{parameters.epoch_num}")

    def on_train_step_end(self, run_context: Any) -> None:
        """Advance the bar, and read the loss every ``every`` steps."""
        parameters = run_context.original_args()
        step_of_epoch = parameters.cur_step_num - self._steps_before
        # 1, or the number of sunk steps with dataset_sink_mode=True.
        steps = step_of_epoch - self._step_of_epoch
        last = step_of_epoch == parameters.batch_num
        if last or step_of_epoch // self._every > self._step_of_epoch // self._every:
            self._loss = _scalar(parameters.net_outputs)
            if self._drawn:
                self._bar.set_postfix_str(self._shown(", "), refresh=False)
        # After the read of the loss, which waits for the epoch's steps to finish.
        self._epoch_stop = time.perf_counter()
        self._step_of_epoch = step_of_epoch
        self._bar.update(steps * self._batch)

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Print the line of the epoch."""
        parameters = run_context.original_args()
        steps = parameters.cur_step_num - self._steps_before - self._first_step
        seconds = self._epoch_stop - self._epoch_start
        left = (
            (time.perf_counter() - self._training_start)
            / (parameters.cur_step_num - self._done_before)
            # On CPUs, which can't sink data, an epoch has more steps than the given sink_size.
            * max(self._total - parameters.cur_step_num, 0)
        )
        line = (
            f"epoch {parameters.cur_epoch_num}/{parameters.epoch_num}  {self._shown('  ')}  "
            f"{steps * self._batch / seconds:.0f} images/s  {seconds:.1f} s  {_clock(left)} left"
        )
        with tqdm.external_write_mode(file=self._lines):
            print(line, file=self._lines, flush=True)

    def on_train_end(self, run_context: Any) -> None:
        """Clear the bar."""
        self._bar.close()

    def _shown(self, separator: str) -> str:
        figures = dict(self._figures()) if self._figures is not None else {}
        return separator.join(
            f"{name} {value:.4g}" for name, value in {"loss": self._loss, **figures}.items()
        )
