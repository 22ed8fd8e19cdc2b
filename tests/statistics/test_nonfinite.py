"""What the user is told of NaN and Inf: by name, kind and step, once; or kept for an exception."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ms_kfac.statistics.nonfinite import GRADIENT, INF, NAN, UPDATE, WEIGHT, NonFiniteReports

PARAMETERS = ("conv.weight", "conv.bias", "head.weight")
FINITE = np.zeros((0, 3), np.int64)


def reports_of(**options: bool) -> NonFiniteReports:
    return NonFiniteReports("KFAC", PARAMETERS, **{"tells_end": True, **options})


def findings(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, np.int64)


def told(reports: NonFiniteReports, step: int, found: np.ndarray) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reports(step, found)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [(GRADIENT, 0, NAN), (GRADIENT, 2, INF)],
            "step 7 was skipped: NaN in the gradient of conv.weight",
        ),
        (
            [(GRADIENT, 0, NAN), (GRADIENT, 2, INF)],
            " and Inf in the gradient of head.weight. Weights,",
        ),
        (
            [(GRADIENT, 0, NAN), (WEIGHT, 1, NAN)],
            "was skipped: the weights already hold NaN in conv.bias",
        ),
        (
            [(UPDATE, 2, INF)],
            "Inf in the preconditioned gradient of head.weight, although the",
        ),
    ],
)
def test_a_skipped_step_is_told_once(rows: list[tuple[int, int, int]], expected: str) -> None:
    reports = reports_of()
    (message,) = told(reports, 7, findings(*rows))
    assert message.startswith("KFAC: ")
    assert expected in message
    assert not told(reports, 8, findings(*rows))
    reports.forget()
    assert told(reports, 9, findings(*rows))


def test_other_parameters_are_news() -> None:
    reports = reports_of()
    assert told(reports, 0, findings((GRADIENT, 0, NAN)))
    (message,) = told(reports, 5, findings((GRADIENT, 1, NAN)))
    assert "step 5 was skipped: NaN in the gradient of conv.bias." in message


def test_statistics_wait_for_the_step_and_are_no_second_warning() -> None:
    """A batch with NaN is found twice in one step: by the judge and by the check of the step."""
    reports = reports_of()
    reports.batch([("conv", NAN)], [], skipped=True)
    (message,) = told(reports, 3, findings((GRADIENT, 0, NAN)))
    assert "gradient of conv.weight" in message
    reports.batch([("conv", INF)], [], skipped=False)
    (message,) = told(reports, 4, FINITE)
    assert "a batch's statistics of layer conv hold Inf in step 4; the batch was refused" in message
    assert not told(reports, 5, FINITE)


def test_weights_behind_finite_gradients_are_told() -> None:
    reports = reports_of()
    reports.batch([], [("head", INF)], skipped=False)
    (message,) = told(reports, 4, FINITE)
    assert "the weights hold Inf in layer head in step 4, although their gradients are finite" in message


def test_without_ends_of_steps_the_judge_tells_at_once() -> None:
    reports = reports_of(tells_end=False)
    with pytest.warns(UserWarning, match="statistics of layer conv hold NaN; the batch was refused"):
        reports.batch([("conv", NAN)], [], skipped=False)


def test_a_failed_refresh_is_told_with_the_step() -> None:
    reports = reports_of()
    reports(-1, FINITE, "conv: factor A holds NaN or infinity")
    (message,) = told(reports, 12, FINITE)
    assert "not computed in step 12: conv: factor A holds NaN or infinity. The layer goes on" in message
    reports(-1, FINITE, "conv: factor G holds NaN or infinity")
    assert not told(reports, 13, FINITE)


def test_an_exception_takes_each_finding_and_warns_only_of_what_no_one_took() -> None:
    reports = reports_of(raises=True)
    for step in (1, 2):
        assert not told(reports, step, findings((GRADIENT, 0, NAN)))
        assert f"step {step} was skipped" in reports.take()
    assert reports.take() == ""
    assert not told(reports, 3, findings((GRADIENT, 0, NAN)))
    (message,) = told(reports, 4, findings((GRADIENT, 0, NAN)))
    assert "step 3 was skipped" in message


def test_with_exceptions_a_finding_that_nobody_raised_is_told_when_the_next_one_comes() -> None:
    reports = reports_of(raises=True)
    parameters = (0, 2, 2, 2, 0)
    found = [told(reports, step, findings((GRADIENT, of, NAN))) for step, of in enumerate(parameters)]
    assert [len(texts) for texts in found] == [0, 1, 1, 0, 0]
    assert "step 0 was skipped: NaN in the gradient of conv.weight" in found[1][0]
    assert "step 1 was skipped: NaN in the gradient of head.weight" in found[2][0]
    assert "step 4" in reports.take()


@pytest.mark.parametrize("tells_end", [False, True])
def test_a_pass_over_sampled_targets_is_told_in_any_case(tells_end: bool) -> None:
    """The check of the step sees other gradients than the judge."""
    reports = reports_of(sampled=True, tells_end=tells_end)
    with pytest.warns(UserWarning, match="a batch's statistics of layer conv hold NaN"):
        reports.batch([("conv", NAN)], [], skipped=True)
        reports(3, FINITE)
