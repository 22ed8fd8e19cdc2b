"""Learning-rate schedules: the numbers of every step."""

from __future__ import annotations

import numpy as np
import pytest

from model_zoo.common.schedules import Constant, Cosine, Polynomial, Step, learning_rates


def test_constant_is_one_number() -> None:
    assert learning_rates(Constant(), 0.3, 4, 5) == 0.3


def test_step_falls_at_the_start_of_its_milestones() -> None:
    rates = learning_rates(Step(milestones=(1, 3), gamma=0.1), 2.0, 4, 3)
    assert rates == pytest.approx([2.0] * 3 + [0.2] * 6 + [0.02] * 3)


def test_cosine_warms_up_and_ends_at_its_final_share() -> None:
    rates = np.array(learning_rates(Cosine(warmup_epochs=1, final=0.1), 1.0, 5, 100))
    assert rates[:100] == pytest.approx((np.arange(100) + 0.5) / 100)
    assert rates[300] == pytest.approx(0.55, abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert np.all(np.diff(rates[100:]) < 0)


def test_polynomial_follows_its_power() -> None:
    rates = learning_rates(Polynomial(power=2.0, final=0.5), 1.0, 1, 2)
    assert rates == pytest.approx([0.5 + 0.5 * 0.75**2, 0.5 + 0.5 * 0.25**2])


@pytest.mark.parametrize("schedule", [Step(milestones=(1,)), Cosine(warmup_epochs=0.5), Polynomial()])
def test_every_step_has_a_rate_above_zero(schedule: object) -> None:
    rates = learning_rates(schedule, 0.1, 3, 7)
    assert len(rates) == 21
    assert min(rates) > 0
