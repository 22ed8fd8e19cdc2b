"""NaN and Inf in the steps of an optimizer: what a user can ask, and the reports behind the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Parameter, Tensor

from ms_kfac.kernels.callbacks import Handle
from ms_kfac.kernels.operator import is_native
from ms_kfac.kernels.reporter import Reporter, register_reporter
from ms_kfac.ops.step.check_step import CheckStep
from ms_kfac.statistics.nonfinite import NonFiniteError, NonFiniteReports


class FiniteSteps:
    """Mixin of :class:`ms_kfac.optim.base.SecondOrderOptimizer`.

    None of its methods runs inside a compiled training step.
    """

    method: str
    prefix: str
    sampled: bool
    parameters: Any
    get_parameters: Any
    check_step: CheckStep
    raises_nonfinite: bool
    _owner: str
    _reports: NonFiniteReports
    _reporter: Handle[Reporter]
    _skips_seen: int

    def _create_reports(self, on_nonfinite: str) -> None:
        """Create the reports of NaN and Inf."""
        # The prefix tells apart the optimizers of a generator and a discriminator.
        owner = type(self).__name__ + ("" if self.prefix == self.method else f" ({self.prefix})")
        self.raises_nonfinite = on_nonfinite == "raise"
        reports = NonFiniteReports(
            owner,
            [parameter.name for parameter in self.parameters],
            raises=self.raises_nonfinite,
            tells_end=is_native("check_step"),
            sampled=self.sampled,
        )
        self.__dict__["_owner"] = owner
        self.__dict__["_reports"] = reports
        self.__dict__["_reporter"] = register_reporter(reports)
        self._skips_seen = 0

    def check_finite(self) -> None:
        """Raise an exception if a step since the last call was not finite. Waits for the last step.

        With ``on_nonfinite="raise"``, a call of the optimizer from Python, ``ms_kfac.TrainOneStepCell`` and
        ``ms_kfac.Model`` call this method after each step. A step that is compiled as a whole otherwise
        (``ms.jit``, ``mindspore.nn.TrainOneStepCell`` in graph mode) can't raise: call this method after it.

        Raises:
            NonFiniteError: if a step was skipped because of NaN or Inf, if a batch of statistics was refused
                because of them, or if inverses could not be computed. The message names what, where and the
                step. On devices other than CPUs, statistics and inverses are found one commit later.
        """
        count, first, last = (int(number) for number in self.check_step.skipped.asnumpy())
        new, self._skips_seen = count - self._skips_seen, count
        text = self._reports.take()
        if new > 0 and not text:
            names = [p.name for p in self.get_parameters() if self._is_lost(p)]
            held = f"; NaN or Inf are in {', '.join(names[:4])}" if names else ""
            text = (
                f"{type(self).__name__}: {new} steps were skipped because of NaN or Inf in gradients or "
                f"updates, the last of them step {last} (the first ever was step {first}){held}"
            )
        if text:
            raise NonFiniteError(text)

    def _watch_loaded_skips(self) -> None:
        """Count skips of the run that a checkpoint comes from as seen."""
        self.check_step.skipped.on_set = self._note_loaded_skips

    def _note_loaded_skips(self, loaded: Tensor) -> None:
        self._skips_seen = int(loaded.asnumpy()[0])

    def _forget_findings(self) -> None:
        """Forget NaN and Inf of earlier steps: other weights and statistics were loaded."""
        self._reports.forget()
        self._skips_seen = self.skipped_steps

    @staticmethod
    def _is_lost(parameter: Parameter) -> bool:
        # Staged batches are replaced by the next pass, and the clip by the next step.
        if parameter.name.endswith(("_batch", ".record", ".clip")):
            return False
        return not np.isfinite(parameter.asnumpy().astype(np.float64)).all()

    @property
    def skipped_steps(self) -> int:
        """Number of steps that were skipped because of NaN or Inf. Reads a number from the device."""
        return int(self.check_step.skipped.asnumpy()[0])
