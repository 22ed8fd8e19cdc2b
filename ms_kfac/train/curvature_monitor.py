"""A callback that reports damping, KL clip and curvature during training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
from mindspore.train import Callback

from ms_kfac.optim.base import SecondOrderOptimizer
from ms_kfac.values import check_count, check_flag

# The factors of the curvature blocks, among all that :meth:`ms_kfac.KFAC.factors` returns.
_FACTORS = ("A", "G", "Phi", "Psi", "F")


class CurvatureMonitor(Callback):
    r"""Report what a second-order optimizer does, every so many steps of ``Model.train``.

    A record holds the step, the damping :math:`\lambda`, the factor :math:`\nu` of the KL clip (below 1 the
    clip was active in that step), and the counts of :meth:`ms_kfac.KFAC.refreshes`. Reading them waits for
    the device; other steps do not wait.

    Args:
        interval: steps from one record to the next, at least 1. Default: 100.
        traces: whether a record holds the trace of every factor of every layer, too, by "layer.factor". They
            are computed on the host from the whole factors. Default: False.
        write: called with a line of text per record; None for silence. Default: print.
        path: a file that receives each record as a line of JSON; None for no file. Each rank of a
            distributed run reports: give each its own file. Default: None.

    Attributes:
        records: the records so far, oldest first.

    Raises:
        TypeError: if ``interval`` is no int; at the start of training, if the optimizer is not one of this
            package.
        ValueError: if ``interval`` is below 1.

    Examples:
        >>> import ms_kfac
        >>> callbacks = [ms_kfac.CurvatureMonitor(interval=50)]  # for model.train(..., callbacks=callbacks)
    """

    def __init__(
        self,
        interval: int = 100,
        *,
        traces: bool = False,
        write: Callable[[str], object] | None = print,
        path: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.interval = check_count("interval", interval)
        self.traces = check_flag("traces", traces)
        self.write = write
        self.path = None if path is None else Path(path)
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

    def on_train_step_end(self, run_context: Any) -> None:
        """Take a record when it is due; with ``dataset_sink_mode=True`` several steps end at once."""
        step = run_context.original_args().cur_step_num
        if step // self.interval > self._before // self.interval:
            self._take_record(step)
        self._before = step

    def _take_record(self, step: int) -> None:
        optimizer = self._optimizer
        record: dict[str, Any] = {"step": step, "damping": optimizer.current_damping}
        record.update(clip_factor=optimizer.clip_factor, **optimizer.refreshes())
        if self.traces:
            for layer in optimizer.layers:
                for name, factor in optimizer.factors(layer).items():
                    if name in _FACTORS:
                        # An embedding table has the diagonal of A.
                        diagonal = factor if factor.ndim == 1 else np.diagonal(factor, axis1=-2, axis2=-1)
                        record[f"{layer}.{name}"] = float(diagonal.sum())
        self.records.append(record)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self.write is not None:
            shown = (
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in record.items()
            )
            self.write(", ".join(shown))
