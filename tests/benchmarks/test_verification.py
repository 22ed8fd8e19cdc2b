"""The verification table: wrong cases are reported with a reason, legitimate ones are silent."""

from __future__ import annotations

import re

import mindspore as ms
import pytest

from benchmarks.training_loops import RIGHT, WRONG
from benchmarks.verification import STEPS, run

REASONS = {
    "functional tying": "layer second .* also used outside its layer",
    "transformed weight": "layer second.* is bypassed",
    "bypassed layer": "layer second.* is bypassed",
    "generator's pass before the step": "not the step.s own reached layers first, second, head",
    "adversarial pass before the step": "not the step.s own reached layers first, second, head",
    "undeclared loss scale": "pass the scaler as loss_scale=",
    "wrong reduction": "pass reduction='sum' to the optimizer",
    "NaN batch, gradients zeroed": "hold NaN in step 1; the batch was refused",
}
# Batches; a layer that is emptied does not count.
REFUSED = {
    "generator's pass before the step": STEPS,
    "adversarial pass before the step": STEPS,
    "NaN batch, gradients zeroed": 1,
}


def test_each_wrong_case_has_a_reason() -> None:
    assert set(REASONS) == set(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_training_loops_are_reported_once_with_the_reason(mode: int, name: str) -> None:
    outcome = run(WRONG[name])
    assert outcome.finite
    assert len(outcome.warnings) == 1, outcome.warnings
    assert re.search(REASONS[name], outcome.warnings[0]), outcome.warnings
    assert outcome.refused == REFUSED.get(name, 0)


@pytest.mark.parametrize("name", RIGHT)
def test_legitimate_training_loops_give_no_warning(name: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        outcome = run(RIGHT[name])
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert outcome.warnings == []
    assert outcome.finite
    assert outcome.refused == 0
    assert set(outcome.states) == {"verified"}


@pytest.mark.parametrize(
    "name",
    [
        "SAM",
        "generator's pass before the step, paused",
        "accumulation not announced, sums",
        "L2 in the loss",
        "recomputed layer",
    ],
)
def test_the_same_in_pynative_mode(name: str) -> None:
    outcome = run(RIGHT[name])
    assert outcome.warnings == []
    assert set(outcome.states) == {"verified"}
