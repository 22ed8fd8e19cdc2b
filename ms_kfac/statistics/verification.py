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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ms_kfac.statistics.calls import CallsPerPass, is_mean_of

Vector = NDArray[np.float64]

MODES = ("warn", "first_order", "off")

# Tolerances for rounding, relative to |dW| and to |u| |v|. Entries of float16 gradients have a relative
# rounding error of 5e-4. Sums of float32 products, in any order, have an error below 1e-4 of |u| |v|.
_OF_GRADIENT, _OF_TERMS = 1e-2, 1e-4
# Minimum number of layers that must agree before an L2 term is accepted as an explanation.
_FEWEST = 3
# Number of consecutive commits with a zero gradient after which a layer counts as dead.
_DEAD = 3
# Number of refuted batches after which a layer's earlier statistics are discarded. Afterwards it must be
# verified as many times: one verification in a hundred is a coincidence.
_REFUTED = 3
# Number of layers up to which one verified layer shows that the pass was that of the step.
_FEW = 4


@dataclass(frozen=True)
class Checked:
    """Result of the last commit for one layer.

    Attributes:
        state: "verified", "mismatch", "no pass", "not finite" or "unchecked".
        ratio: q over the expected value, or NaN if the expected value is 0.
    """

    state: str = "unchecked"
    ratio: float = float("nan")


class Verification:
    """Judge of one optimizer's commits, with its results.

    Args:
        layers: names of the layers.
        mode: "warn" warns of a mismatch once per layer. It refuses the batch of a layer while other layers
            are verified, and commits the batches if all layers have a mismatch. "first_order" empties the
            statistics of a layer with a mismatch for good, so that it is first-order from its next refresh.
            "off" checks only for NaN and Inf.
        owner: the optimizer's name, for warnings.
        shares_gate: whether all layers take statistics at the same steps. If each layer has its own steps, a
            layer without a pass causes a warning only at the first commit. Default: True.

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
    ) -> None:
        self.layers = tuple(layers)
        self.mode = mode
        self.owner = owner
        self.checked = [Checked() for _ in layers]
        self.factor = 1.0
        self.calls = CallsPerPass(len(self.layers)) if calls is None else calls
        self._told: set[tuple[str, str]] = set()
        self._demoted: set[int] = set()
        self.shares_gate = shares_gate
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
            (layers, 3). First the decision: 1 commits the layer's batch, 0 refuses it, -1 also empties the
            layer's statistics. Then the number of passes per batch from now on, and the number of calls of
            the layer per pass.
        """
        numbers = told.astype(np.float64)
        passes, period, finite = numbers[:, 0], numbers[:, 1], numbers[:, 8] > 0.5
        answers = np.stack([finite.astype(np.float64), np.maximum(period, 1.0), self.calls.calls], axis=1)
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
        tolerance = _OF_GRADIENT * norm + _OF_TERMS * scale
        factor, fits, accumulated = _explain(p, P, q, w, tolerance, passes, looked)
        self.factor = factor
        alone = looked & ~fits & (passes > 1) & (np.abs(q - factor * P) <= tolerance * max(1.0, abs(factor)))
        # Until the period is complete, the staged batch is the sum of all passes.
        joined = ((accumulated & looked) | alone) & (passes > period)
        answers[joined, 1] = passes[joined]
        right = fits | alone
        mismatched = looked & ~right
        batch = np.where(joined, passes, (passes - 1.0) % np.maximum(period, 1.0) + 1.0)
        answers[:, 2] = self.calls(batch, kernels, right, factor)
        missing = measurable & (passes == 0) & (norm > 0) & (self.shares_gate or self._first)
        self._first = False
        expected = factor * (P if accumulated.any() else p)
        for index in range(len(self.layers)):
            state = "unchecked"
            if looked[index]:
                state = "verified" if right[index] else "mismatch"
            elif missing[index]:
                state = "no pass"
            elif passes[index] > 0 and not finite[index]:
                state = "not finite"
            ratio = q[index] / expected[index] if expected[index] != 0 else float("nan")
            self.checked[index] = Checked(state, float(ratio))
        # A few layers may fit the gradient of another pass by chance: one in a hundred.
        enough = right.sum() >= max(1 + (looked.sum() > _FEW), 0.1 * looked.sum())
        self._tell_mismatch(mismatched, others_verified=bool(enough))
        self._tell_missing(missing)
        self._tell_dead(measurable & (passes > 0), norm)
        self._tell_factor(factor, int(looked.sum()))
        self._tell_ambiguous()
        if enough:
            self._refuse(mismatched, right, np.abs(q) > 3.0 * tolerance, answers)
        if self.mode == "first_order":
            self._demoted |= set(np.flatnonzero(mismatched).tolist())
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
                "averages are unchanged. Later refused batches cause no warning for the same layers; "
                "refreshes() counts them"
            )

    def _tell_mismatch(self, flags: NDArray[Any], *, others_verified: bool) -> None:
        new = self._new("mismatch", flags)
        if not new:
            return
        ratios = ", ".join(
            f"{self.checked[index].ratio:.3g}"
            for index in np.flatnonzero(flags)
            if self.layers[index] in new[:4]
        )
        if not others_verified:
            reason = (
                "the last backward pass before the step had another loss through the same layers, or the "
                "gradients were changed per layer"
            )
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
            f"gradient to the expected one: {ratios}). Likely cause: {reason}. {consequence}. {way_out}"
        )

    def _tell_missing(self, flags: NDArray[Any]) -> None:
        new = self._new("no pass", flags)
        if new:
            self._warn(
                f"no backward pass reached the statistics of {_listed(new)}, although a gradient was "
                "delivered: a layer is bypassed, or recomputed without its tap. Such layers get first-order "
                "updates. skip= makes that explicit, verify='off' silences this warning"
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

    def _tell_factor(self, factor: float, layers: int) -> None:
        if factor == 1.0 or layers == 0 or ("factor", "") in self._told:
            return
        power = np.log2(abs(factor)) if factor != 0 else 0.5
        is_power = abs(power - round(power)) < 1e-3 and abs(power) > 0.5
        if is_power and not is_mean_of(self.calls.micro_batches, factor):
            self._told.add(("factor", ""))
            self._warn(
                f"delivered gradients are {factor:.6g} times those of the backward pass. If the loss was "
                "scaled and the gradients were unscaled before the step, the statistics still contain the "
                "scale: pass the scaler as loss_scale=. The batch is committed; verify='off' silences this "
                "warning"
            )


def _explain(
    p: Vector, P: Vector, q: Vector, w: Vector, tolerance: Vector, passes: Vector, looked: NDArray[Any]
) -> tuple[float, NDArray[Any], NDArray[Any]]:
    """The best explanation: the factor, the layers that it fits, the layers that joined several passes."""
    none_fits = np.zeros(len(p), bool)
    if not looked.any():
        return 1.0, none_fits, none_fits
    # P is p for a layer with one pass.
    several = bool((passes[looked] > 1).any())
    products = [(p, False), (P, True)] if several else [(p, False)]
    accounts = [(1.0, product, joined, False) for product, joined in products]
    if several:
        counts = float(np.gcd.reduce(passes[looked].astype(int))), float(np.median(passes[looked]))
        accounts += [(1.0 / count, P, True, False) for count in dict.fromkeys(counts) if count > 1.0]
    for fit in (_common_factor, _factor_next_to_l2):
        accounts += [(fit(part, q, w, tolerance, looked), part, joined, True) for part, joined in products]
    best: tuple[float, NDArray[Any], bool] = (1.0, none_fits, False)
    for factor, product, joined, fitted in accounts:
        allowed = tolerance * max(1.0, abs(factor))
        residual = q - factor * product
        fits = looked & (np.abs(residual) <= allowed)
        for own in (looked, looked & ~fits):
            # An L2 term of all layers, or of some of them.
            if own.sum() >= _FEWEST and not fits[looked].all():
                with_l2 = np.abs(residual - _l2_term(residual, w, own)) <= allowed
                fits = looked if with_l2[own].all() else fits
        # A fitted factor must fit several layers to be an explanation. With a single layer it can only be
        # gradient clipping, which makes the gradient smaller and never larger.
        single = looked.sum() == 1 and 0.0 < factor <= 1.0 + _OF_GRADIENT
        if fitted and not single and fits.sum() < max(2, looked.sum() / 2):
            continue
        if fits.sum() > best[1].sum():
            best = (factor, fits, joined)
        if fits[looked].all():
            break
    factor, fits, joined = best
    return factor, fits, looked & joined


def _common_factor(p: Vector, q: Vector, w: Vector, tolerance: Vector, looked: NDArray[Any]) -> float:
    """Median of q / p, weighted by |p| relative to the tolerance; 1 if no layer has a significant p."""
    telling = looked & (np.abs(p) > 3.0 * tolerance) & (np.abs(p) > 0)
    if not telling.any():
        return 1.0
    ratios, trust = q[telling] / p[telling], np.abs(p[telling]) / tolerance[telling]
    order = np.argsort(ratios)
    reached = np.cumsum(np.minimum(trust[order], 100.0))
    return float(ratios[order][np.searchsorted(reached, reached[-1] / 2)])


def _factor_next_to_l2(p: Vector, q: Vector, w: Vector, tolerance: Vector, looked: NDArray[Any]) -> float:
    """Least-squares c of q = c p + beta w, weighted by the tolerances; 1 if there are too few layers."""
    if looked.sum() <= _FEWEST:
        return 1.0
    weights = 1.0 / tolerance[looked]
    columns = np.stack([p[looked] * weights, w[looked] * weights], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(columns, q[looked] * weights, rcond=None)
    return float(solution[0]) if rank == 2 else 1.0


def _l2_term(residual: Vector, w: Vector, looked: NDArray[Any]) -> Vector:
    """Least-squares fit of the residual by one multiple of r'Ws in all layers."""
    total = float(np.sum(w[looked] ** 2))
    return w * (float(np.sum(residual[looked] * w[looked])) / total if total > 0 else 0.0)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"layer{'s' if len(names) > 1 else ''} {shown}" + (
        f" and {len(names) - 4} more" if len(names) > 4 else ""
    )
