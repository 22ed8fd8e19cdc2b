"""Learning-rate schedules: the numbers of every step."""

from __future__ import annotations

import numpy as np
import pytest

from model_zoo.common.schedules import Constant, Cosine, Exponential, Polynomial, Step, step_values


def test_constant_schedule_has_one_value() -> None:
    assert step_values(Constant(), 0.3, 4, 5) == 0.3


def test_step_schedule_drops_at_its_milestones() -> None:
    rates = step_values(Step(milestones=(1, 3), gamma=0.1), 2.0, 4, 3)
    assert rates == pytest.approx([2.0] * 3 + [0.2] * 6 + [0.02] * 3)


def test_cosine_schedule_warms_up_and_ends_at_its_final_fraction() -> None:
    rates = np.array(step_values(Cosine(warmup_epochs=1, final=0.1), 1.0, 5, 100))
    assert rates[:100] == pytest.approx((np.arange(100) + 0.5) / 100)
    assert rates[300] == pytest.approx(0.55, abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert np.all(np.diff(rates[100:]) < 0)


def test_polynomial_schedule_follows_its_power() -> None:
    rates = step_values(Polynomial(power=2.0, final=0.5), 1.0, 1, 2)
    assert rates == pytest.approx([0.5 + 0.5 * 0.75**2, 0.5 + 0.5 * 0.25**2])


def test_step_schedule_accepts_milestones_in_steps() -> None:
    rates = step_values(Step(milestones=(4, 7), gamma=0.5, unit="steps"), 1.0, 3, 3)
    assert rates == [1.0] * 4 + [0.5] * 3 + [0.25] * 2


def test_exponential_schedule_decays_by_gamma() -> None:
    dampings = step_values(Exponential(gamma=0.5467, every_epochs=10), 0.02345, 20, 2)
    epochs = (np.arange(40) + 0.5) / 2
    assert dampings == pytest.approx(0.02345 * 0.5467 ** (epochs / 10))


def test_polynomial_schedule_between_given_epochs() -> None:
    # From epoch 1 to epoch 5, of which training sees the first half.
    rates = step_values(Polynomial(power=2.0, from_epoch=1, until_epoch=5), 1.0, 3, 2)
    left = [1, 1, 1 - 0.25 / 4, 1 - 0.75 / 4, 1 - 1.25 / 4, 1 - 1.75 / 4]
    assert rates == pytest.approx(np.square(left))
    short = step_values(Polynomial(final=0.5, until_epoch=1), 1.0, 3, 1)
    assert short == pytest.approx([0.75, 0.5, 0.5])


@pytest.mark.parametrize(
    "schedule",
    [Step(milestones=(1,)), Cosine(warmup_epochs=0.5), Polynomial(), Polynomial(until_epoch=3)],
)
def test_learning_rates_are_positive(schedule: object) -> None:
    rates = step_values(schedule, 0.1, 3, 7)
    assert len(rates) == 21
    assert min(rates) > 0
