"""The check of a step by the CPU's kernel: what is not finite, of which kind, and what is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.support.aot import AotLibrary
from ms_kfac.kernels.library import library
from ms_kfac.kernels.reporter import register_reporter
from ms_kfac.statistics.nonfinite import GRADIENT, INF, NAN, UPDATE, WEIGHT

pytestmark = pytest.mark.skipif(not library("CPU").path, reason=library("CPU").reason)

SCALE = 0.5
# Two preconditioned parameters, and two without a product. The last is read on all threads.
OWNERS, FIRST_ORDER = [1, 0], [2, 3]
SHAPES = [(3, 4), (3,), (5,), (300, 301)]


class Step:
    """The kernel with a reporter that keeps what it is told."""

    def __init__(self, aot: AotLibrary, dtype: Any = np.float32) -> None:
        self.told: list[tuple[int, list[list[int]]]] = []
        self.handle = register_reporter(lambda step, found, text: self.told.append((step, found.tolist())))
        self.step, self.due = np.array([6], np.int32), np.array(0, np.int32)
        self.products, self.skipped = np.ones(2, np.float32), np.zeros(3, np.int32)
        self.gradients = [np.ones(shape, dtype) for shape in SHAPES]
        self.weights = [np.ones(shape, dtype) for shape in SHAPES]
        self.scale = np.zeros((), np.float32)
        head = [self.step, self.due, np.array(SCALE, np.float32), self.products, self.skipped]
        self.operator = aot.operator(
            "CheckStep",
            [*head, *self.gradients, *self.weights],
            [self.scale],
            owners=OWNERS,
            first_order=FIRST_ORDER,
            reporter=self.handle.number,
        )

    def run(self) -> bool:
        """Whether the step is finite."""
        self.operator.run()
        assert np.isnan(self.scale) or self.scale == SCALE
        return not np.isnan(self.scale)


def test_a_finite_step_is_reported_only_where_statistics_are_due(aot: AotLibrary) -> None:
    step = Step(aot)
    assert step.run()
    assert step.told == []
    step.due[...] = 2
    assert step.run()
    assert step.told == [(6, [])]
    assert step.skipped.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("value", "kind"), [(np.nan, NAN), (np.inf, INF), (-np.inf, INF)])
@pytest.mark.parametrize("parameter", FIRST_ORDER)
def test_gradients_without_a_product(aot: AotLibrary, parameter: int, value: float, kind: int) -> None:
    step = Step(aot)
    # A finite number can't hide behind the others, nor at the end.
    step.gradients[parameter].reshape(-1)[-1] = value
    assert not step.run()
    assert step.told == [(6, [[GRADIENT, parameter, kind]])]


@pytest.mark.parametrize(("value", "kind"), [(np.nan, NAN), (np.inf, INF)])
def test_products_tell_gradients_and_updates(aot: AotLibrary, value: float, kind: int) -> None:
    step = Step(aot)
    step.products[0] = value
    assert not step.run()
    assert step.told == [(6, [[UPDATE, 1, kind]])]
    step.gradients[1][0] = value
    assert not step.run()
    assert step.told[1:] == [(6, [[GRADIENT, 1, kind]])]


def test_weights_are_named_if_the_step_is_not_finite(aot: AotLibrary) -> None:
    step = Step(aot)
    step.weights[3][0, 0] = np.inf
    assert step.run()
    step.gradients[2][0] = np.nan
    assert not step.run()
    assert step.told == [(6, [[GRADIENT, 2, NAN], [WEIGHT, 3, INF]])]


def test_skipped_steps_are_counted(aot: AotLibrary) -> None:
    step = Step(aot)
    for number, value in enumerate([np.nan, 1.0, np.inf, np.nan]):
        step.step[0], step.products[1] = number, value
        step.run()
    assert step.skipped.tolist() == [3, 0, 3]


def test_half_precision(aot: AotLibrary) -> None:
    step = Step(aot, np.float16)
    step.gradients[2][1] = 65504.0
    assert step.run()
    for value, kind in ((np.inf, INF), (np.nan, NAN)):
        step.gradients[2][1] = value
        assert not step.run()
        assert step.told.pop() == (6, [[GRADIENT, 2, kind]])
