"""The record of a pass by the CUDA statistics operators, against the weight gradient in float64."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.aot import AotLibrary
from tests.kernels.cuda.test_kronecker_statistics import Statistics
from tests.support.cuda_statistics import CAPTURE_ERROR, LAYERS, PRODUCT, SCALE, Layer

# Cases that LAYERS lacks: more channels than slices of a block, groups of one channel and more groups than
# threads, one tap, one location, vectors without samples, half precision.
OTHERS = {
    "many_channels": Layer(200, 130, kernel=(3, 3), padding=(1, 1, 1, 1), samples=2, size=(3, 4), bias=True),
    "depthwise": Layer(300, 300, kernel=(3, 3), padding=(1, 1, 1, 1), groups=300, size=(4, 3), bias=True),
    "pointwise": Layer(12, 20, kernel=(1, 1), size=(5, 4), groups=4),
    "one_location": Layer(6, 5, kernel=(3, 2), size=(3, 2), bias=True),
    "one_sample": Layer(33, 70, samples=1, bias=True),
    "wide": Layer(1100, 3, samples=9),
    "reduce_without_bias": Layer(5, 6, kernel=(3, 3), stride=(2, 1), padding=(1, 0, 1, 1), reduce=True),
    "dense_float16": Layer(7, 6, samples=4, locations=(3, 2), bias=True, dtype="float16"),
}


@pytest.mark.parametrize("name", [*LAYERS, *OTHERS])
def test_product_and_scale(operators: AotLibrary, name: str, rng: np.random.Generator, schedule: int) -> None:
    case = Statistics({**LAYERS, **OTHERS}[name], rng)
    operator = case.operator(operators)
    for calls in (1, 2):
        operator.run()
        case.check_record([case.weight(0), case.weight(1)], calls)
    # The signal must be far above the tolerance, or a wrong product could pass.
    product, scale = case.capture()
    assert abs(product) > 100 * CAPTURE_ERROR * scale


def test_two_runs_give_the_same_bits(operators: AotLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Statistics(LAYERS["conv3x3"], np.random.default_rng(3)) for _ in range(2)]
    # On the emulator the schedule differs, so that another block is the last one.
    for case, seed in zip(cases, ("1", "2")):
        monkeypatch.setenv("EMULATOR_SEED", seed)
        case.operator(operators).run()
    np.testing.assert_array_equal(cases[0].record, cases[1].record)


@pytest.mark.parametrize("name", ["dense", "conv_groups"])
@pytest.mark.parametrize("gate", [1, 2])
def test_gradients_are_taken_as_they_are_delivered(
    operators: AotLibrary, name: str, gate: int, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS[name], rng)
    case.gate[...] = gate
    case.operator(operators, separate=True).run()
    case.check_record([case.weight(side) * (gate == side + 1) for side in (0, 1)])
    before = case.record.copy()
    case.record[[0, *range(2, len(case.record))]] = 0
    # The scaling of statistics does not affect the product.
    case.operator(operators, separate=True, gradient_scale=8.0, mean_reduction=False).run()
    np.testing.assert_array_equal(case.record, before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["dense", "conv3x3"])
def test_non_finite_values_are_recorded(
    operators: AotLibrary, name: str, value: float, rng: np.random.Generator
) -> None:
    case = Statistics(LAYERS[name], rng)
    case.dout.ravel()[5] = value
    case.operator(operators).run()
    assert not np.isfinite(case.record[[PRODUCT, SCALE]]).any()
