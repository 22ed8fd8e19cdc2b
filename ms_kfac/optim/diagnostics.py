"""Numbers that say what an optimizer does, read on the host between steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Parameter
from numpy.typing import NDArray

from ms_kfac.capture.layer import Layer
from ms_kfac.damping import LevenbergMarquardt
from ms_kfac.optim.finite_steps import FiniteSteps
from ms_kfac.statistics.verification import Verification
from ms_kfac.values import check_flag, json_values

# Entries of `factors()` that are matrices, and those that are diagonals of whatever shape.
_MATRICES = ("A", "G", "Phi", "Psi", "F")
_DIAGONALS = ("s",)
# SMKFAC tracks the diagonals of A and G after it has reset the whole factors.
_TRACKED = "_diagonal"


class Diagnostics(FiniteSteps):
    """What every optimizer tells about itself."""

    blocks: Any
    statistics_schedule: Any
    inverse_schedule: Any
    commit: Any
    commit_lone: Any
    has_lone_blocks: bool
    verification: Verification
    global_step: Any
    clips: bool
    damping: Any
    last_clip: Parameter
    _layers: Sequence[Layer]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the preconditioned layers, then of the Parameters outside layers that have blocks."""
        return tuple(layer.name for layer in self._layers)

    def refreshes(self) -> dict[str, int]:
        """Number of curvature refreshes so far.

        Returns:
            Counts by name.

            - "statistics": batches of statistics taken.
            - "inverses": inverses recomputed.
            - "refused": batches that some layer refused, because of NaN or Inf or because they do not belong
              to the gradient.

            If the policy decides for all layers together, one refresh of all layers counts once. If it
            decides per layer, every layer counts separately.
        """
        commits = [self.commit, self.commit_lone] if self.has_lone_blocks else [self.commit]
        return {
            "statistics": int(self.statistics_schedule.refreshes.asnumpy()),
            "inverses": int(self.inverse_schedule.refreshes.asnumpy()),
            "refused": max(int(commit.outcome.asnumpy()[0]) for commit in commits),
        }

    def diagnostics(self, *, traces: bool = True, eigenvalues: bool = False) -> dict[str, Any]:
        r"""What the optimizer does now, as one dictionary of numbers and texts that JSON can hold.

        Nothing is computed inside the training step. The call waits for the device and copies the statistics
        of all layers to the host; with ``traces=False``, a few numbers only.

        Args:
            traces: whether to include each layer's traces and damping ratio. Default: True.
            eigenvalues: whether to include the extreme eigenvalues of each layer's factors, by NumPy's
                ``eigvalsh``: seconds for factors of some thousand rows. Default: False.

        Returns:
            Numbers by name.

            A number that is NaN or infinite is None, because JSON has neither: the clip factor of a skipped
            step, and what is computed from statistics that hold NaN or Inf.

            - "steps": steps taken. "damping": :attr:`current_damping`. "clip_factor": :attr:`clip_factor`.
            - "statistics", "inverses", "refused": as in :meth:`refreshes`. "skipped_steps":
              :attr:`skipped_steps`. "bytes": memory of statistics and inverses.
            - "layers": a dictionary by layer name, in the order of :attr:`layers`. "verified" is the result
              of the last commit as in :meth:`summary`. "preconditioned" is false for a layer that is
              first-order because it has no statistics. "bytes" is the memory.

            With ``traces``, a layer also has:

            - "trace": :math:`\mathrm{tr} F_l`, the trace of its Fisher block.
            - "damping_ratio": the damping over the block's mean eigenvalue,
              :math:`\lambda \dim F_l / \mathrm{tr} F_l`. Far above 1, the layer's step is nearly that of
              gradient descent. None without statistics and with TKFAC's automatic damping, which does not
              use :math:`\lambda`.
            - "traces": the trace of each factor in :meth:`factors`, summed over groups.

            With ``eigenvalues``, "eigenvalues" has the smallest and the largest eigenvalue of each factor
            with statistics; SMKFAC's are of its last full statistics.
            On several devices, traces and eigenvalues are of local statistics: see :meth:`synchronize`.

        Raises:
            TypeError: if an argument is not a bool.
            ValueError: if ``eigenvalues`` is True and ``traces`` is False.
        """
        traces, eigenvalues = check_flag("traces", traces), check_flag("eigenvalues", eigenvalues)
        if eigenvalues and not traces:
            raise ValueError("eigenvalues must be False with traces=False, got True")
        damping, layers = self.current_damping, self._layer_states()
        if traces:
            for numbers, block in zip(layers.values(), self.blocks):
                numbers.update(_curvature_of(block, damping, eigenvalues=eigenvalues))
        found: dict[str, Any] = json_values(
            {
                "steps": int(self.global_step.asnumpy().item()),
                "damping": damping,
                "clip_factor": self.clip_factor,
                **self.refreshes(),
                "skipped_steps": self.skipped_steps,
                "bytes": sum(numbers["bytes"] for numbers in layers.values()),
                "layers": layers,
            }
        )
        return found

    def _layer_states(self) -> dict[str, dict[str, Any]]:
        """What :meth:`diagnostics` tells of each layer, without its curvature."""
        verified = [checked.state for checked in self.verification.checked]
        # Parameters outside layers have no tapped pass to verify against.
        verified += ["unchecked"] * (len(self.blocks) - len(verified))
        return {
            layer.name: {"verified": state, "preconditioned": not idle, "bytes": block.bytes()}
            for layer, block, state, idle in zip(
                self._layers, self.blocks, verified, self._without_statistics()
            )
        }

    def _without_statistics(self) -> list[bool]:
        if self.refreshes()["statistics"] == 0:
            return [False] * len(self._layers)
        commits = [self.commit, self.commit_lone] if self.has_lone_blocks else [self.commit]
        return [present == 0 for commit in commits for present in commit.outcome.asnumpy()[1:]]

    @property
    def current_damping(self) -> float:
        r"""The damping :math:`\lambda` of the next step. Reads a number from the device."""
        schedule = self.damping.schedule
        if schedule is None:
            values = self.damping.values.asnumpy()
            return float(values[min(int(self.global_step.asnumpy().item()), len(values) - 1)])
        if isinstance(schedule, LevenbergMarquardt):
            return float(schedule.value.asnumpy())
        return float(self.damping(self.global_step).asnumpy())

    @property
    def clip_factor(self) -> float:
        r"""The factor :math:`\nu` by which the KL clip scaled the last step.

        1.0 if the step was inside the trust region, before the first step, and with ``kl_clip=None``. NaN if
        the step was skipped.
        Reads a number from the device.
        """
        return float(self.last_clip.asnumpy()) if self.clips else 1.0


def _curvature_of(block: Any, damping: float, *, eigenvalues: bool) -> dict[str, Any]:
    r"""Traces, damping ratio and extreme eigenvalues of a layer's Fisher block.

    Args:
        block: the layer's block.
        damping: the present damping :math:`\lambda`.
        eigenvalues: whether to compute the extreme eigenvalues of the factors, too.

    Returns:
        The numbers of a layer that :meth:`ms_kfac.KFAC.diagnostics` describes; NaN and Inf may be among them.
    """
    factors = block.factors()
    # SKFAC's trace() fixes the factors' ranks, so it must not be called before there are statistics.
    trace = float(block.trace().asnumpy()) if block.weights.asnumpy().any() else 0.0
    ratio = None if block.follows_trace or trace == 0.0 else damping * block.size / trace
    found: dict[str, Any] = {"trace": trace, "damping_ratio": ratio, "traces": _traces(factors)}
    if eigenvalues:
        # Exact values: the smallest eigenvalue is what the damping competes with, and a few power iterations
        # miss it by the rounding error of the largest.
        extremes = {name: _extreme_eigenvalues(name, factors[name]) for name in _spectra(factors)}
        found["eigenvalues"] = extremes
    return found


def _spectra(factors: dict[str, NDArray[np.float32]]) -> list[str]:
    # A factor of zeros has no statistics.
    return [name for name in (*_MATRICES, *_DIAGONALS) if name in factors and factors[name].any()]


def _is_diagonal(name: str, factor: NDArray[np.float32]) -> bool:
    # An embedding table has the diagonal of A.
    return name in _DIAGONALS or factor.ndim == 1


def _traces(factors: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    found = {}
    for name in (*_MATRICES, *_DIAGONALS):
        if name in factors:
            factor = factors.get(name + _TRACKED, factors[name])
            whole = name + _TRACKED in factors or _is_diagonal(name, factor)
            diagonal = factor if whole else np.diagonal(factor, axis1=-2, axis2=-1)
            found[name] = float(diagonal.sum(dtype=np.float64))
    return found


def _extreme_eigenvalues(name: str, factor: NDArray[np.float32]) -> list[float]:
    if not np.isfinite(factor).all():
        return [float("nan")] * 2
    exact = factor.astype(np.float64)
    values = exact if _is_diagonal(name, factor) else np.linalg.eigvalsh(exact)
    return [float(values.min()), float(values.max())]
