"""NaN and Inf in a step: what the user is told, or which exception is raised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ms_kfac.user_warning import warn_user

MODES = ("skip", "raise")
# Codes of kernels/interface/reports.h.
GRADIENT, UPDATE, WEIGHT = range(3)
NAN, INF = 1, 2

# Number of names that a message lists.
_NAMED = 4
_KINDS = {NAN: "NaN", INF: "Inf"}

Found = Sequence[tuple[str, int]]


class NonFiniteError(FloatingPointError):
    """NaN or Inf in a training step, with ``on_nonfinite="raise"`` or found by ``check_finite()``.

    A step with gradients or updates that are not finite was skipped. After refused statistics, or inverses
    that were not computed, the step was taken. The optimizer and its compiled steps can still be used.
    """


class NonFiniteReports:
    """Collects what is not finite in the steps of one optimizer, and tells it once for each name.

    A step has up to three sources: the judge of a commit, a refresh, and the check of the step. They run in
    this order. Where the check reports the end of steps, the findings of one step are told together.

    Args:
        owner: the optimizer's name.
        parameters: names of its parameters.
        raises: whether findings are raised from Python, by the user of :meth:`take`, instead of told. A
            finding that no one has raised when the next one comes is told.
        tells_end: whether the check of a step reports each step that took statistics, even if it is finite.
        sampled: whether statistics come from a pass of their own, whose gradients the check does not see.
    """

    def __init__(
        self,
        owner: str,
        parameters: Sequence[str],
        *,
        raises: bool = False,
        tells_end: bool = False,
        sampled: bool = False,
    ) -> None:
        self._owner = owner
        self._parameters = tuple(parameters)
        self._raises = raises
        self._tells_end = tells_end
        self._told: set[tuple[str, str]] = set()
        self._statistics: list[tuple[str, int]] = []
        self._weights: list[tuple[str, int]] = []
        self._failures: list[str] = []
        self._sampled = sampled
        self._latest: tuple[set[tuple[str, str]], str] = (set(), "")

    def batch(self, statistics: Found, weights: Found, *, skipped: bool) -> None:
        """Findings of a judge: layers with their kind of number.

        Args:
            statistics: layers whose batch of statistics was refused.
            weights: layers whose weights are not finite.
            skipped: whether a gradient is not finite, so that the check of the same step finds it, too.
        """
        self._statistics += statistics
        self._weights += weights
        if not self._tells_end:
            self._tell_batch("", told_elsewhere=skipped and not self._sampled)

    def __call__(self, step: int, findings: NDArray[np.int64], failure: str = "") -> None:
        """Report the end of a step, or a failed refresh.

        Args:
            step: number of steps before this one; negative for a failed refresh.
            findings: int64 (count, 3): the array (gradient, update, weight), the parameter and the kind of
                number. The step was skipped if there are any.
            failure: why inverses could not be computed.
        """
        if failure:
            self._failures.append(failure)
        if step < 0 and self._tells_end:
            return
        at = f" in step {step}" if step >= 0 else ""
        for text in dict.fromkeys(self._failures):
            self._tell(
                [("inverse", text.partition(": ")[0])],
                f"the inverses of a layer were not computed{at}: {text}. The layer goes on with earlier "
                "inverses; other layers are refreshed. Load an earlier checkpoint (optimizer.restore)",
            )
        self._failures = []
        if step >= 0:
            self._tell_step(step, findings)
            self._tell_batch(at, told_elsewhere=len(findings) > 0 and not self._sampled)

    def take(self) -> str:
        """The latest finding since the last call; empty if there is none."""
        (_, latest), self._latest = self._latest, (set(), "")
        return latest

    def forget(self) -> None:
        """Forget all findings: other weights and statistics were loaded."""
        for kept in (self._told, self._statistics, self._weights, self._failures):
            kept.clear()
        self._latest = set(), ""

    def _tell_step(self, step: int, findings: NDArray[np.int64]) -> None:
        gradients, updates, weights = (
            [(self._parameters[index], kind) for array, index, kind in findings.tolist() if array == code]
            for code in (GRADIENT, UPDATE, WEIGHT)
        )
        skipped = f"step {step} was skipped"
        if weights:
            # A gradient by such weights is no news.
            self._tell(
                [("weight", name) for name, _ in weights],
                f"{skipped}: the weights already hold {_listed(weights)}. No later step can be finite: load "
                "earlier weights (optimizer.restore, mindspore.load_param_into_net)",
            )
        elif gradients:
            self._tell(
                [("gradient", name) for name, _ in gradients],
                f"{skipped}: {_listed(gradients, 'the gradient of ')}. Weights, momentum and the statistics "
                "of these layers are unchanged. Later skipped steps cause no warning for the same "
                "parameters; optimizer.skipped_steps counts them. on_nonfinite='raise' raises an exception "
                "instead",
            )
        elif updates:
            self._tell(
                [("update", name) for name, _ in updates],
                f"{skipped}: {_listed(updates, 'the preconditioned gradient of ')}, although the gradient is "
                "finite. The inverses of the layer or its statistics hold NaN or Inf, or float32 overflows: "
                "load an earlier checkpoint (optimizer.restore), or raise damping",
            )

    def _tell_batch(self, at: str, *, told_elsewhere: bool) -> None:
        statistics, self._statistics = self._statistics, []
        weights, self._weights = self._weights, []
        if told_elsewhere:
            return
        if weights:
            self._tell(
                [("weight of", name) for name, _ in weights],
                f"the weights hold {_listed(weights, 'layer ')}{at}, although their gradients are finite: "
                "load earlier weights (optimizer.restore, mindspore.load_param_into_net)",
            )
        for kind, name in _KINDS.items():
            own = [layer for layer, found in statistics if found == kind]
            if own:
                self._tell(
                    [("statistics", layer) for layer in own],
                    f"a batch's statistics of layer{'s' if len(own) > 1 else ''} {_names(own)} hold {name}"
                    f"{at}; the batch was refused and the averages are unchanged. Later refused batches "
                    "cause no warning for the same layers; refreshes() counts them",
                )

    def _tell(self, keys: Iterable[tuple[str, str]], text: str) -> None:
        finding = set(keys), f"{self._owner}: {text}"
        # With exceptions, what is told is the earlier finding, which was not raised.
        told, message = self._latest if self._raises else finding
        self._latest = finding
        if message and told - self._told:
            warn_user(message)
            self._told |= told


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _listed(found: Found, what: str = "") -> str:
    parts = []
    for kind, text in _KINDS.items():
        names = [name for name, own in found if own == kind]
        if names:
            parts.append(f"{text} in {what}{_names(names)}")
    return " and ".join(parts)
