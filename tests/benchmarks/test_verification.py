"""The table of verification: what is wrong is told with its reason, what is legitimate is silent."""

from __future__ import annotations

import re

import mindspore as ms
import pytest

from benchmarks.training_loops import RIGHT, WRONG
from benchmarks.verification import run

REASONS = {
    "functional tying": "layer second .* also used outside its layer",
    "transformed weight": "layer second.* is bypassed",
    "bypassed layer": "layer second.* is bypassed",
    "generator's pass before the step": "first, second, head .*another loss through the same layers",
    "adversarial pass before the step": "first, second, head .*another loss through the same layers",
    "undeclared loss scale": "pass the scaler as loss_scale=",
    "wrong reduction": "give the optimizer reduction='sum'",
    "NaN batch, gradients zeroed": "hold NaN or Inf; the batch was refused",
}


def test_each_wrong_case_has_a_reason() -> None:
    assert set(REASONS) == set(WRONG)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_is_told_once_with_its_reason(mode: int, name: str) -> None:
    told = run(WRONG[name])
    assert told.finite
    assert len(told.warnings) == 1, told.warnings
    assert re.search(REASONS[name], told.warnings[0]), told.warnings
    assert told.refused == int(name.startswith("NaN"))


@pytest.mark.parametrize("name", RIGHT)
def test_legitimate_is_silent(name: str) -> None:
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        told = run(RIGHT[name])
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    assert told.warnings == []
    assert told.finite
    assert told.refused == 0
    assert set(told.states) == {"verified"}


@pytest.mark.parametrize(
    "name", ["SAM", "accumulation not announced, sums", "L2 in the loss", "recomputed layer"]
)
def test_the_same_in_pynative_mode(name: str) -> None:
    told = run(RIGHT[name])
    assert told.warnings == []
    assert set(told.states) == {"verified"}
