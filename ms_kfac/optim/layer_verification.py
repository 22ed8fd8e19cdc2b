"""Verification of an optimizer's tapped layers: what it learns from their blocks, taps and Parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from ms_kfac.capture.layer import Layer
from ms_kfac.capture.tap import Tap
from ms_kfac.ops.step.parameter_rows import parameter_of
from ms_kfac.statistics.calls import CallsPerPass
from ms_kfac.statistics.nonfinite import NonFiniteReports
from ms_kfac.statistics.verification import Verification


def verification_of(
    layers: Sequence[Layer],
    blocks: Sequence[Any],
    taps: Callable[[], Sequence[Tap]],
    verify: str,
    *,
    owner: str,
    accumulation_steps: int,
    shares_gate: bool,
    counting: Sequence[int],
    reports: NonFiniteReports,
) -> Verification:
    """Create the verification of an optimizer's tapped layers.

    Args:
        layers: the tapped layers.
        blocks: their curvature blocks, which learn how often their layer is called.
        taps: returns their present taps: moving the taps to another network replaces them.
        verify: the option ``verify``.
        owner: the optimizer's name, for warnings.
        accumulation_steps: the option ``accumulation_steps``.
        shares_gate: whether all layers take statistics at the same steps.
        counting: the layers that count samples for a loss that is a sum.
        reports: told of NaN and Inf.

    Returns:
        The verification.
    """
    calls = CallsPerPass(
        len(layers),
        lambda: [tap.calls for tap in taps()],
        lambda index, *numbers: blocks[index].expect_calls(*numbers),
    )
    calls.announced = accumulation_steps if accumulation_steps > 1 else None
    # A block that is used before it is refreshed also takes batches of second moments, which the others miss.
    extra = any(block.used_before_refresh for block in blocks)
    in_every_batch = [shares_gate and (block.used_before_refresh or not extra) for block in blocks]
    # Not the Parameters: reading theirs waits for the step that waits for the verification.
    information = [[parameter_of(p).param_info for p in layer.parameters()] for layer in layers]
    return Verification(
        [layer.name for layer in layers],
        verify,
        owner,
        in_every_batch=in_every_batch,
        calls=calls,
        counting=counting,
        frozen=lambda: [not any(info.requires_grad for info in own) for own in information],
        reports=reports,
    )
