r"""Verification that the captured inputs and output gradients of a layer give its delivered gradient.

At every commit, each layer has three projections (:mod:`ms_kfac.ops.statistics.capture_check`): p of the
staged passes, P of all passes since the last commit, and q of the gradient that the optimizer received. If
the capture of a layer is correct, :math:`q = p` up to rounding. Verification accepts the following
legitimate differences:

* one factor c for all layers (gradients clipped by their global norm, averaged micro-batches):
  :math:`q = c p`;
* unannounced micro-batches, or several calls of a layer in one pass: :math:`q = c P`. Later batches are
  then staged as sums of as many passes (:mod:`ms_kfac.statistics.calls` tells calls from micro-batches);
* an L2 term in the loss: :math:`q = c p + \beta\, r^{\top} W s` with one :math:`\beta`, of all layers or of
  at least three.

Its further findings have one module each: :mod:`~ms_kfac.statistics.foreign_passes`,
:mod:`~ms_kfac.statistics.refuted_layers`, :mod:`~ms_kfac.statistics.dead_layers` and
:mod:`~ms_kfac.statistics.undeclared_scale`. :mod:`~ms_kfac.statistics.verification_warnings` tells the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from ms_kfac.statistics.calls import CallsPerPass
from ms_kfac.statistics.dead_layers import DeadLayers
from ms_kfac.statistics.explanation import OF_GRADIENT, OF_TERMS, explain, is_weak
from ms_kfac.statistics.foreign_passes import ForeignPasses
from ms_kfac.statistics.nonfinite import INF, NAN, NonFiniteReports
from ms_kfac.statistics.refuted_layers import RefutedLayers
from ms_kfac.statistics.undeclared_scale import UndeclaredScale, must_be_scale
from ms_kfac.statistics.verification_warnings import VerificationWarnings

MODES = ("warn", "first_order", "off")

# Number of layers up to which one verified layer shows that the pass was that of the step.
_FEW = 4


@dataclass(frozen=True)
class Checked:
    """Result of the last commit that was to have a batch of a layer.

    Attributes:
        state: "verified", "mismatch", "no pass", "zero gradient", "not finite" (the statistics or the
            gradient) or "unchecked" (no commit yet, no pass and no gradient, or finite statistics with
            ``verify="off"``).
        ratio: q over the expected value, or NaN if the expected value is 0.
    """

    state: str = "unchecked"
    ratio: float = float("nan")


class Verification:
    """Judge of one optimizer's commits, with its results.

    Args:
        layers: names of the layers.
        mode: "warn" warns of a mismatch once per layer. It refuses batches of foreign passes, and the batch
            of a layer while other layers are verified; it commits the batches if all layers have a mismatch
            and no other pass ran. "first_order" also empties the statistics of a layer with a mismatch for
            good, so that it is first-order from its next refresh. "off" checks only for NaN and Inf.
        owner: the optimizer's name, for warnings.
        in_every_batch: which layers take part in every batch of statistics. A layer with steps of its own
            causes a warning for a missing pass only at the first commit. Default: None, all layers.
        calls: finds how many times a pass calls each layer. Default: None, to create one.
        counting: the layers that count samples for a loss that is a sum. Default: none.
        frozen: tells which layers have only frozen parameters now. Default: None, none of them.
        reports: told of NaN and Inf. Default: None, to create one.

    Attributes:
        checked: results of the last commit, one per layer.
        factor: c of the last commit.
        calls: finds how many times a pass calls each layer.
    """

    def __init__(
        self,
        layers: Sequence[str],
        mode: str,
        owner: str,
        *,
        in_every_batch: Sequence[bool] | None = None,
        calls: CallsPerPass | None = None,
        counting: Sequence[int] = (),
        frozen: Callable[[], Sequence[bool]] | None = None,
        reports: NonFiniteReports | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.mode = mode
        self.checked = [Checked() for _ in layers]
        self.factor = 1.0
        self.calls = CallsPerPass(len(self.layers)) if calls is None else calls
        self.foreign_passes = ForeignPasses(len(self.layers))
        self.refuted_layers = RefutedLayers(len(self.layers))
        self.dead_layers = DeadLayers(len(self.layers))
        self.undeclared_scale = UndeclaredScale()
        self.warnings = VerificationWarnings(self.layers, owner)
        self.reports = NonFiniteReports(owner, ()) if reports is None else reports
        self._demoted: set[int] = set()
        self.in_every_batch = np.array(
            [True] * len(self.layers) if in_every_batch is None else in_every_batch
        )
        self.counting = list(counting)
        self.frozen = (lambda: [False] * len(self.layers)) if frozen is None else frozen
        self._first = True

    def __call__(self, told: NDArray[np.float32]) -> NDArray[Any]:
        """Decide about one commit.

        Args:
            told: float32 (layers, 10): passes, period, p, P, |u| |v|, q, r'Ws, |dW|, whether the staged batch
                is finite, number of kernels that staged it.

        Returns:
            (layers, 4). First the decision: 1 commits the layer's batch, 0 refuses it, -1 also empties the
            layer's statistics. Then the number of passes per batch from now on, the number of calls of the
            layer per pass, and the number of passes to skip before the next batch.
        """
        numbers = told.astype(np.float64)
        period, finite = numbers[:, 1], numbers[:, 8] > 0.5
        answers = np.stack(
            [
                finite.astype(np.float64),
                np.maximum(period, 1.0),
                self.calls.calls,
                self.foreign_passes.skipped,
            ],
            axis=1,
        )
        skipped = self._report(numbers)
        if self.mode == "off":
            for index in np.flatnonzero(numbers[:, 0] > 0):
                self.checked[index] = Checked("unchecked" if finite[index] else "not finite")
        else:
            self._verify(numbers, answers)
        if skipped:
            answers[:, 0] = np.minimum(answers[:, 0], 0.0)
        return answers

    def _report(self, numbers: NDArray[np.float64]) -> bool:
        """Report NaN and Inf; return whether a gradient holds them, so that the step is skipped."""
        product, scale, q, w, norm = numbers[:, [2, 4, 5, 6, 7]].T
        skipped = ~np.isfinite(q + norm)
        # Without NaN in the projections, squares of the batch are too large for float32.
        statistics = np.where(np.isnan(product + scale), NAN, INF)
        weights = np.where(np.isnan(w), NAN, INF)
        refused = (numbers[:, 0] > 0) & (numbers[:, 8] < 0.5)
        self.reports.batch(
            [(self.layers[index], int(statistics[index])) for index in np.flatnonzero(refused)],
            [(self.layers[index], int(weights[index])) for index in np.flatnonzero(~np.isfinite(w))],
            skipped=bool(skipped.any()),
        )
        return bool(skipped.any())

    def _verify(self, numbers: NDArray[np.float64], answers: NDArray[Any]) -> None:
        finite = numbers[:, 8] > 0.5
        measurable = finite & np.isfinite(numbers[:, 5:8]).all(axis=1)
        # NumPy warns about arithmetic with NaN and Inf, although the results are not used below.
        passes, period, p, P, scale, q, w, norm, _, kernels = np.where(np.isfinite(numbers), numbers, 0.0).T
        looked = measurable & (passes > 0) & (norm > 0)
        tolerance = OF_GRADIENT * norm + OF_TERMS * scale
        factor, fits, accumulated = explain(p, P, q, w, tolerance, passes, looked)
        self.factor = factor
        alone = looked & ~fits & (passes > 1) & (np.abs(q - factor * P) <= tolerance * max(1.0, abs(factor)))
        right = fits | alone
        weak = is_weak(factor, q - factor * np.where(accumulated, P, p), tolerance, looked)
        foreign, answers[:, 1] = self.foreign_passes(passes, period, looked, right, weak)
        answers[:, 3] = self.foreign_passes.skipped
        right = right & ~foreign
        # Until the period is complete, the staged batch is the sum of all passes.
        joined = ((accumulated & looked) | alone) & (passes > period) & right
        answers[joined, 1] = passes[joined]
        mismatched = looked & ~right
        batch = np.where(joined, passes, (passes - 1.0) % np.maximum(period, 1.0) + 1.0)
        answers[:, 2] = self.calls(batch, kernels, right, factor)
        expects_passes = self.in_every_batch | self._first
        missing = measurable & (passes <= 0) & (norm > 0) & expects_passes
        self._first = False
        expected = factor * (P if accumulated.any() else p)
        for index in np.flatnonzero(expects_passes | (passes > 0)):
            state = "unchecked"
            if looked[index]:
                state = "verified" if right[index] else "mismatch"
            elif missing[index]:
                state = "no pass"
            elif passes[index] > 0:
                state = "zero gradient" if measurable[index] else "not finite"
            ratio = q[index] / expected[index] if expected[index] != 0 else float("nan")
            self.checked[index] = Checked(state, float(ratio))
        # A few layers may fit the gradient of another pass by chance: one in a hundred.
        enough = right.sum() >= max(1 + (looked.sum() > _FEW), 0.1 * looked.sum())
        changed = mismatched & ~foreign
        ratios = [checked.ratio for checked in self.checked]
        self.warnings.foreign(foreign, ratios)
        self.warnings.mismatch(
            changed,
            ratios,
            others_verified=bool(enough),
            stays_first_order=self.mode == "first_order",
        )
        self.warnings.missing(missing, passes > 0)
        delivered = measurable & (norm > 0)
        counting = self.counting
        if expects_passes[counting].any() and not (passes[counting] > 0).any() and delivered.any():
            self.warnings.uncounted(counting)
        self.warnings.frozen(delivered & np.array(self.frozen(), bool))
        self.warnings.dead(self.dead_layers(measurable & (passes > 0), norm))
        if right.any() and self.undeclared_scale(factor, self.calls.micro_batches):
            if must_be_scale(factor):
                # Emptied, because a judge on a GPU answers after the first batch was committed.
                answers[right, 0] = -1.0
            self.warnings.undeclared_scale(factor, refused=must_be_scale(factor))
        if self.calls.ambiguous:
            self.warnings.ambiguous(self.calls.micro_batches)
        if enough:
            refused, emptied = self.refuted_layers(changed, right, np.abs(q) > 3.0 * tolerance)
            answers[refused, 0] = 0.0
            answers[emptied, 0] = -1.0
        answers[foreign, 0] = 0.0
        if self.mode == "first_order":
            self._demoted |= set(np.flatnonzero(changed).tolist())
            answers[sorted(self._demoted), 0] = -1.0
