"""A callback that reports damping, KL clip and curvature during training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Callable

import mindspore as ms
from mindspore import Tensor, ops
from mindspore.train import Callback

from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.values import check_count, check_flag

_NOT_IN_A_LINE = ("layers", "steps", "bytes")
# Of one layer, what goes to a summary.
_LAYER_SCALARS = ("trace", "damping_ratio")


class CurvatureMonitor(Callback):
    """Report what a second-order optimizer does, every so many steps of ``Model.train``.

    A record is the dictionary of :meth:`ms_kfac.KFAC.diagnostics`, with two more entries. "step" is
    Model's number of the step. "seconds_per_step" is the mean since the last record, with data loading and
    other callbacks. It excludes the first step, which compiles, reading the records, and what happens between
    epochs; None if no step is left. Reading waits for the device; other steps do not wait.

    Args:
        interval: steps from one record to the next, at least 1. Default: 100.
        traces: whether a record holds the traces and the damping ratio of each layer, too. They are computed
            on the host from the whole factors. Default: False.
        eigenvalues: whether it also holds the extreme eigenvalues of each factor. Default: False.
        write: called with a line of text per record; None for silence. Default: print.
        path: a file that receives each record as a line of JSON; None for no file. Each rank of a
            distributed run reports: give each its own file. Default: None.
        summary: whether each number of a record goes to ``mindspore.ops.ScalarSummary``, for a
            ``SummaryCollector`` behind this callback in the list, or a ``SummaryRecord``. The collector
            writes them if its ``collect_freq`` divides ``interval``. Without a collector they pile up in
            memory. Default: False.

    Attributes:
        records: the records so far, oldest first.

    Raises:
        TypeError: if ``interval`` is no int, or a flag no bool; at the start of training, if the optimizer is
            not one of this package.
        ValueError: if ``interval`` is below 1, or ``eigenvalues`` is True and ``traces`` is False.

    Examples:
        >>> import ms_kfac
        >>> callbacks = [ms_kfac.CurvatureMonitor(interval=50)]  # for model.train(..., callbacks=callbacks)
    """

    def __init__(
        self,
        interval: int = 100,
        *,
        traces: bool = False,
        eigenvalues: bool = False,
        write: Callable[[str], object] | None = print,
        path: str | Path | None = None,
        summary: bool = False,
    ) -> None:
        super().__init__()
        self.interval = check_count("interval", interval)
        self.traces = check_flag("traces", traces)
        self.eigenvalues = check_flag("eigenvalues", eigenvalues)
        if self.eigenvalues and not self.traces:
            raise ValueError("eigenvalues must be False with traces=False, got True")
        self.write = write
        self.path = None if path is None else Path(path)
        self.summary = check_flag("summary", summary)
        self.records: list[dict[str, Any]] = []
        self._before = 0

    def on_train_begin(self, run_context: Any) -> None:
        """Find the optimizer."""
        arguments = run_context.original_args()
        optimizer = arguments.optimizer or getattr(arguments.train_network, "optimizer", None)
        if not isinstance(optimizer, SecondOrderOptimizer):
            raise TypeError(
                "CurvatureMonitor needs an optimizer of ms_kfac as the model's, got "
                f"{type(optimizer).__name__}"
            )
        self._optimizer = optimizer
        self._before = arguments.cur_step_num
        self._compiled = False
        self._steps, self._seconds = 0, 0.0

    def on_train_epoch_begin(self, run_context: Any) -> None:
        """Start to time the epoch: an evaluation has ended."""
        self._mark = time.perf_counter()

    def on_train_step_end(self, run_context: Any) -> None:
        """Take a record when it is due; with ``dataset_sink_mode=True`` several steps end at once."""
        step = run_context.original_args().cur_step_num
        due = step // self.interval > self._before // self.interval
        if due or not self._compiled:
            self._optimizer.global_step.asnumpy()  # Waits for the device to finish the step.
        if self._compiled:
            self._steps += step - self._before
            self._seconds += time.perf_counter() - self._mark
        self._compiled = True
        if due:
            self.take_record(step)
            self._steps, self._seconds = 0, 0.0
        self._mark, self._before = time.perf_counter(), step

    def take_record(self, step: int) -> dict[str, Any]:
        """Read the optimizer and report; a subclass can do more with a record.

        Args:
            step: Model's number of the step.

        Returns:
            The record.
        """
        record = {
            "step": step,
            **self._optimizer.diagnostics(traces=self.traces, eigenvalues=self.eigenvalues),
            "seconds_per_step": self._seconds / self._steps if self._steps else None,
        }
        self.records.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self.write is not None:
            self.write(_line(record))
        if self.summary:
            for name, value in _scalars(record).items():
                ops.ScalarSummary()(f"curvature/{name}", Tensor(value, ms.float32))
        return record


def _line(record: dict[str, Any]) -> str:
    text = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in record.items()
        if name not in _NOT_IN_A_LINE and value is not None
    )
    ratios = [layer.get("damping_ratio") for layer in record["layers"].values()]
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{text}, damping_ratio {min(known):.4g} to {max(known):.4g}" if known else text


def _scalars(record: dict[str, Any]) -> dict[str, float]:
    found = {name: value for name, value in record.items() if name not in ("step", "layers")}
    for layer, numbers in record["layers"].items():
        found |= {f"{name}/{layer}": numbers.get(name) for name in _LAYER_SCALARS}
    return {name: float(value) for name, value in found.items() if value is not None}
