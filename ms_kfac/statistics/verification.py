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

A layer whose statistics are refuted while those of other layers are verified takes none: its weight is also
used outside the layer, or transformed before use.

Verification also detects collapsed training: layers whose gradients were non-zero and are now exactly 0, for
example because all later ReLUs are dead.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray

from ms_kfac.statistics.calls import CallsPerPass, is_mean_of
from ms_kfac.statistics.explanation import OF_GRADIENT, OF_TERMS, Vector, explain, is_weak
from ms_kfac.statistics.foreign_passes import ForeignPasses

MODES = ("warn", "first_order", "off")

# Least factor between gradients that can only be a loss scale.
_LEAST_SCALE = 32.0
# Number of consecutive commits with a zero gradient after which a layer counts as dead.
_DEAD = 3
# Number of refuted batches after which a layer's earlier statistics are discarded. Afterwards it must be
# verified as many times: one verification in a hundred is a coincidence.
_REFUTED = 3
# A factor counts as constant if it is the same in this many commits in a row, up to this relative difference.
_CONSTANT, _OF_FACTOR = 4, 3e-3
# Number of layers up to which one verified layer shows that the pass was that of the step.
_FEW = 4


@dataclass(frozen=True)
class Checked:
    """Result of the last commit for one layer.

    Attributes:
        state: "verified", "mismatch", "no pass", "zero gradient", "not finite" (the statistics or the
            gradient) or "unchecked" (no commit yet, or no pass and no gradient).
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
        shares_gate: whether all layers take statistics at the same steps. If each layer has its own steps, a
            layer without a pass causes a warning only at the first commit. Default: True.
        calls: finds how many times a pass calls each layer. Default: None, to create one.
        counting: the layers that count samples for a loss that is a sum. Default: none.
        frozen: tells which layers have only frozen parameters now. Default: None, none of them.

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
        shares_gate: bool = True,
        calls: CallsPerPass | None = None,
        counting: Sequence[int] = (),
        frozen: Callable[[], Sequence[bool]] | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.mode = mode
        self.owner = owner
        self.checked = [Checked() for _ in layers]
        self.factor = 1.0
        self.calls = CallsPerPass(len(self.layers)) if calls is None else calls
        self.foreign_passes = ForeignPasses(len(self.layers))
        self._factors: tuple[float, ...] = ()
        self._told: set[tuple[str, str]] = set()
        self._demoted: set[int] = set()
        self.shares_gate = shares_gate
        self.counting = list(counting)
        self.frozen = (lambda: [False] * len(self.layers)) if frozen is None else frozen
        self._first = True
        self._had_gradient = np.zeros(len(self.layers), bool)
        self._without_gradient = np.zeros(len(self.layers), int)
        self._refuted = np.zeros(len(self.layers), int)
        self._trusted = np.zeros(len(self.layers), bool)

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
        passes, period, finite = numbers[:, 0], numbers[:, 1], numbers[:, 8] > 0.5
        answers = np.stack(
            [
                finite.astype(np.float64),
                np.maximum(period, 1.0),
                self.calls.calls,
                self.foreign_passes.skipped,
            ],
            axis=1,
        )
        self._tell_not_finite((passes > 0) & ~finite)
        if self.mode != "off":
            self._verify(numbers, answers)
        return answers

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
        expects_passes = self.shares_gate or self._first
        missing = measurable & (passes <= 0) & (norm > 0) & expects_passes
        self._first = False
        expected = factor * (P if accumulated.any() else p)
        for index in range(len(self.layers)):
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
        self._tell_foreign(foreign)
        self._tell_mismatch(changed, others_verified=bool(enough))
        self._tell_missing(missing, passes > 0)
        delivered = measurable & (norm > 0)
        if self.counting and expects_passes and not (passes[self.counting] > 0).any() and delivered.any():
            self._tell_uncounted()
        self._tell_frozen(delivered & np.array(self.frozen(), bool))
        self._tell_dead(measurable & (passes > 0), norm)
        if right.any() and self._is_scale(factor):
            self._refuse_scaled(factor, right, answers)
        self._tell_ambiguous()
        if enough:
            self._refuse(changed, right, np.abs(q) > 3.0 * tolerance, answers)
        answers[foreign, 0] = 0.0
        if self.mode == "first_order":
            self._demoted |= set(np.flatnonzero(changed).tolist())
            answers[sorted(self._demoted), 0] = -1.0

    def _refuse(
        self,
        mismatched: NDArray[Any],
        right: NDArray[Any],
        significant: NDArray[Any],
        answers: NDArray[Any],
    ) -> None:
        changed = np.where(mismatched & ~self._trusted, _REFUTED, self._refuted + mismatched - right)
        self._refuted = np.clip(changed, 0, _REFUTED)
        refused = (mismatched | right) & (self._refuted > 0)
        answers[refused, 0] = 0.0
        emptied = mismatched & (self._refuted == _REFUTED)
        answers[emptied, 0] = -1.0
        self._trusted = (self._trusted | (right & significant & ~refused)) & ~emptied

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self.owner}: {text}", stacklevel=2)

    def _new(self, kind: str, flags: NDArray[Any]) -> list[str]:
        names = [self.layers[index] for index in np.flatnonzero(flags)]
        new = [name for name in names if (kind, name) not in self._told]
        self._told |= {(kind, name) for name in new}
        return new

    def _tell_not_finite(self, flags: NDArray[Any]) -> None:
        new = self._new("not finite", flags)
        if new:
            self._warn(
                f"a batch's statistics of {_listed(new)} hold NaN or Inf; the batch was refused and the "
                "averages are unchanged. The batch's gradient still moves the weights, unless the training "
                "loop drops the step: look for NaN in the weights. Later refused batches cause no warning "
                "for the same layers; refreshes() counts them"
            )

    def _ratios(self, flags: NDArray[Any], names: Sequence[str]) -> str:
        shown = [index for index in np.flatnonzero(flags) if self.layers[index] in names[:4]]
        return ", ".join(f"{self.checked[index].ratio:.3g}" for index in shown)

    def _tell_foreign(self, flags: NDArray[Any]) -> None:
        new = self._new("foreign", flags)
        if new:
            self._warn(
                f"a backward pass that is not the step's own reached {_listed(new)} since the last step "
                f"(ratio of the gradient to the expected one: {self._ratios(flags, new)}). The batch of "
                "statistics is refused; a layer without statistics is first-order. Put such passes into "
                "`with optimizer.paused():`. verify='off' commits the last pass without this check"
            )

    def _tell_mismatch(self, flags: NDArray[Any], *, others_verified: bool) -> None:
        new = self._new("mismatch", flags)
        if not new:
            return
        if not others_verified:
            reason = "the gradients were changed per layer, or added to other gradients"
        else:
            reason = (
                "the weight is also used outside its layer or transformed before use, a call of the layer "
                "has a backward pass that does not reach the statistics, or the gradients were changed per "
                "layer"
            )
        way_out = "skip= makes that explicit, verify='off' preconditions all layers without this check"
        if self.mode == "first_order":
            consequence = "These layers stay first-order"
        elif others_verified:
            consequence = "The batch is refused: without earlier statistics these layers are first-order"
        else:
            consequence = "These layers are still preconditioned"
            way_out = "skip= leaves layers first-order, verify='off' silences this warning"
        self._warn(
            f"the statistics of {_listed(new)} do not belong to the delivered gradient (ratio of the "
            f"gradient to the expected one: {self._ratios(flags, new)}). Likely cause: {reason}. "
            f"{consequence}. {way_out}"
        )

    def _tell_missing(self, flags: NDArray[Any], reached: NDArray[Any]) -> None:
        new = self._new("no pass", flags)
        if not new:
            return
        if reached.any():
            reason = (
                "a layer is bypassed, recomputed without its tap, or tapped by a later optimizer. skip= "
                "makes that explicit"
            )
        else:
            reason = (
                "the gradients were computed before the last step, or by a function that was compiled before "
                "this optimizer was made. Compile functions after that"
            )
        self._warn(
            f"no backward pass reached the statistics of {_listed(new)}, although a gradient was "
            f"delivered: {reason}. Without statistics these layers get first-order updates. verify='off' "
            "silences this warning"
        )

    def _tell_uncounted(self) -> None:
        if ("uncounted", "") in self._told:
            return
        self._told.add(("uncounted", ""))
        self._warn(
            "the number of samples is unknown, so that the gradient of the summed loss does not move the "
            f"weights: reduction='sum' counts samples in the backward passes of "
            f"{_listed([self.layers[index] for index in self.counting])}, and no pass reached them. skip= "
            "layers that passes do not reach, so that others count. verify='off' silences this warning"
        )

    def _tell_frozen(self, flags: NDArray[Any]) -> None:
        new = self._new("frozen", flags)
        if new:
            self._warn(
                f"the parameters of {_listed(new)} are frozen (requires_grad=False), but are trained on: "
                "MindSpore compiles a step for the parameters that the optimizer was made with, as for "
                "nn.Momentum. Make a new optimizer and a new step after freezing, or give these parameters a "
                "group and set its learning rate to 0. verify='off' silences this warning"
            )

    def _tell_dead(self, reached: NDArray[Any], norm: Vector) -> None:
        self._had_gradient |= norm > 0
        without = reached & self._had_gradient & (norm == 0)
        before = self._without_gradient
        self._without_gradient = np.where(without, before + 1, np.where(reached, 0, before))
        new = self._new("dead", self._without_gradient >= _DEAD)
        if new:
            self._warn(
                f"the gradient of {_listed(new)} has been exactly 0 in {_DEAD} batches of statistics in a "
                "row, but was not 0 before. Either all later activations are dead (ReLU) and training has "
                "collapsed: restart from earlier weights with a smaller learning rate or kl_clip, or a "
                "larger damping. Or the loss or its branch is exactly 0, the layer is disconnected, or "
                "float16 gradients underflow without a loss scale. The optimizer continues as before; "
                "verify='off' silences this warning"
            )

    def _tell_ambiguous(self) -> None:
        if not self.calls.ambiguous or ("calls", "") in self._told:
            return
        self._told.add(("calls", ""))
        count = self.calls.micro_batches
        self._warn(
            f"all layers had {count} backward passes in this step, or a multiple of them. They count as "
            f"{count} micro-batches with whole losses. If the losses are divided by {count}, pass "
            f"accumulation_steps={count}. If the passes are calls within one pass (Siamese towers), train "
            "with ms_kfac.TrainOneStepCell or ms_kfac.Model"
        )

    def _is_scale(self, factor: float) -> bool:
        power = np.log2(abs(factor)) if factor != 0 else 0.5
        is_power = abs(power - round(power)) < 1e-3 and abs(power) > 0.5
        # Clipping by the global norm has another factor for each batch.
        self._factors = (*self._factors, factor)[-_CONSTANT:]
        spread = max(self._factors) - min(self._factors)
        is_constant = len(self._factors) == _CONSTANT and spread <= _OF_FACTOR * abs(factor)
        is_factor = is_power or (is_constant and abs(factor - 1.0) > OF_GRADIENT)
        return bool(is_factor) and not is_mean_of(self.calls.micro_batches, factor)

    def _refuse_scaled(self, factor: float, right: NDArray[Any], answers: NDArray[Any]) -> None:
        # Smaller powers may be the loop's own: a mean of two gradients.
        refused = not _LEAST_SCALE > abs(factor) > 1.0 / _LEAST_SCALE
        if refused:
            # Emptied, because a judge on a GPU answers after the first batch was committed.
            answers[right, 0] = -1.0
        if ("factor", "") not in self._told:
            self._told.add(("factor", ""))
            self._warn(
                f"delivered gradients are {factor:.6g} times those of the backward pass, a power of two or "
                "the same factor in several batches. If the loss was scaled and the gradients were unscaled "
                "before the step, the statistics still contain the scale: pass the scaler as loss_scale=. "
                "With loss_scale=, unscale the gradients before the step and adjust the scaler after it. "
                "The batch is "
                f"{'refused' if refused else 'committed'}; verify='off' commits all batches"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"layer{'s' if len(names) > 1 else ''} {shown}" + (
        f" and {len(names) - 4} more" if len(names) > 4 else ""
    )
