"""What verification tells the user: each finding once per layer, with its likely cause and a way out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ms_kfac.statistics.dead_layers import DEAD

# Number of layers that a warning names.
_NAMED = 4


class VerificationWarnings:
    """Warns of the findings of one optimizer's verification.

    Every method but the last three takes one flag per layer, and is silent about layers that it has told of.

    Args:
        layers: names of the layers.
        owner: the optimizer's name.
    """

    def __init__(self, layers: Sequence[str], owner: str) -> None:
        self._layers = tuple(layers)
        self._owner = owner
        self._told: set[tuple[str, str]] = set()

    def foreign(self, flags: NDArray[Any], ratios: Sequence[float]) -> None:
        """Warn of layers that a pass has reached which is not the step's own.

        Args:
            flags: one per layer.
            ratios: of the gradients to the expected ones, one per layer.
        """
        new = self._new("foreign", flags)
        if new:
            self._warn(
                f"a backward pass that is not the step's own reached {_listed(new)} since the last step "
                f"(ratio of the gradient to the expected one: {self._shown(ratios, flags, new)}). The batch "
                "of statistics is refused; a layer without statistics is first-order. Put such passes into "
                "`with optimizer.paused():`; in a compiled function, compute them after the step. "
                "verify='off' commits the last pass without this check"
            )

    def mismatch(
        self,
        flags: NDArray[Any],
        ratios: Sequence[float],
        *,
        others_verified: bool,
        stays_first_order: bool,
    ) -> None:
        """Warn of layers whose statistics do not belong to the delivered gradient.

        Args:
            flags: one per layer.
            ratios: of the gradients to the expected ones, one per layer.
            others_verified: whether other layers were verified, so that the batch is refused.
            stays_first_order: whether such layers lose their statistics for good.
        """
        new = self._new("mismatch", flags)
        if not new:
            return
        if not others_verified:
            reason = (
                "the weights are transformed before use (as in standardized convolutions), or the gradients "
                "were changed per layer, or added to other gradients"
            )
        else:
            reason = (
                "the weight is also used outside its layer or transformed before use, a call of the layer "
                "has a backward pass that does not reach the statistics, or the gradients were changed per "
                "layer"
            )
        way_out = "skip= makes that explicit, verify='off' preconditions all layers without this check"
        if stays_first_order:
            consequence = "These layers stay first-order"
        elif others_verified:
            consequence = "The batch is refused: without earlier statistics these layers are first-order"
        else:
            consequence = "These layers are still preconditioned"
            way_out = "skip= leaves layers first-order, verify='off' silences this warning"
        self._warn(
            f"the statistics of {_listed(new)} do not belong to the delivered gradient (ratio of the "
            f"gradient to the expected one: {self._shown(ratios, flags, new)}). Likely cause: {reason}. "
            f"{consequence}. {way_out}"
        )

    def missing(self, flags: NDArray[Any], reached: NDArray[Any]) -> None:
        """Warn of layers that got a gradient, but no backward pass.

        Args:
            flags: one per layer.
            reached: which layers a pass has reached.
        """
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

    def frozen(self, flags: NDArray[Any]) -> None:
        """Warn of frozen layers that a compiled step trains on."""
        new = self._new("frozen", flags)
        if new:
            self._warn(
                f"the parameters of {_listed(new)} are frozen (requires_grad=False), but are trained on: "
                "MindSpore compiles a step for the parameters that the optimizer was made with, as for "
                "nn.Momentum. Make a new optimizer and a new step after freezing, or give these parameters a "
                "group and set its learning rate to 0. verify='off' silences this warning"
            )

    def dead(self, flags: NDArray[Any]) -> None:
        """Warn of layers that have lost their gradient."""
        new = self._new("dead", flags)
        if new:
            self._warn(
                f"the gradient of {_listed(new)} has been exactly 0 in {DEAD} batches of statistics in a "
                "row, but was not 0 before. Either all later activations are dead (ReLU) and training has "
                "collapsed: restart from earlier weights with a smaller learning rate or kl_clip, or a "
                "larger damping. Or the loss or its branch is exactly 0, the layer is disconnected, or "
                "float16 gradients underflow without a loss scale. The optimizer continues as before; "
                "verify='off' silences this warning"
            )

    def uncounted(self, counting: Sequence[int]) -> None:
        """Warn of a summed loss without a number of samples.

        Args:
            counting: the layers that count samples.
        """
        if self._is_new("uncounted"):
            self._warn(
                "the number of samples is unknown, so that the gradient of the summed loss does not move the "
                f"weights: reduction='sum' counts samples in the backward passes of "
                f"{_listed([self._layers[index] for index in counting])}, and no pass reached them. skip= "
                "layers that passes do not reach, so that others count. verify='off' silences this warning"
            )

    def ambiguous(self, count: int) -> None:
        """Warn of passes that are either micro-batches or calls.

        Args:
            count: number of the passes.
        """
        if self._is_new("calls"):
            self._warn(
                f"all layers had {count} backward passes in this step, or a multiple of them. They count as "
                f"{count} micro-batches with whole losses. If the losses are divided by {count}, pass "
                f"accumulation_steps={count}. If the passes are calls within one pass (Siamese towers), "
                "train with ms_kfac.TrainOneStepCell or ms_kfac.Model"
            )

    def undeclared_scale(self, factor: float, *, refused: bool) -> None:
        """Warn of a factor that hints at a loss scale.

        Args:
            factor: ratio of the delivered gradient to the one of the backward pass.
            refused: whether the batch is refused.
        """
        if self._is_new("factor"):
            self._warn(
                f"delivered gradients are {factor:.6g} times those of the backward pass, a power of two or "
                "the same factor in several batches. If the loss was scaled and the gradients were unscaled "
                "before the step, the statistics still contain the scale: pass the scaler as loss_scale=. "
                "With loss_scale=, unscale the gradients before the step and adjust the scaler after it. "
                "The batch is "
                f"{'refused' if refused else 'committed'}; verify='off' commits all batches"
            )

    def _warn(self, text: str) -> None:
        warnings.warn(f"{self._owner}: {text}", stacklevel=2)

    def _new(self, kind: str, flags: NDArray[Any]) -> list[str]:
        """Names of the flagged layers that were not told of this before."""
        names = [self._layers[index] for index in np.flatnonzero(flags)]
        return [name for name in names if self._is_new(kind, name)]

    def _is_new(self, kind: str, layer: str = "") -> bool:
        is_new = (kind, layer) not in self._told
        self._told.add((kind, layer))
        return is_new

    def _shown(self, ratios: Sequence[float], flags: NDArray[Any], names: Sequence[str]) -> str:
        shown = [index for index in np.flatnonzero(flags) if self._layers[index] in names[:_NAMED]]
        return ", ".join(f"{ratios[index]:.3g}" for index in shown)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"layer{'s' if len(names) > 1 else ''} {shown}" + (
        f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    )
