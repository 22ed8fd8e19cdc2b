"""Layers that get a gradient, but no backward pass that reaches their statistics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.verification import (
    COUNT,
    NORM,
    P_OF_ALL,
    PASSES,
    SCALE,
    P,
    Q,
    answers_of,
    judge_of,
    states,
    told,
    without_pass,
)


def without_any_pass() -> np.ndarray:
    numbers = told()
    numbers[:, [PASSES, P, P_OF_ALL, SCALE]] = 0
    return numbers


def test_gradients_without_any_pass_are_older_than_the_step_or_compiled_before() -> None:
    judge = judge_of()
    with pytest.warns(UserWarning, match="compiled before this optimizer was made"):
        answers_of(judge, without_any_pass())
    assert states(judge) == ["no pass"] * COUNT


def test_unreached_layer_is_reported_once() -> None:
    judge = judge_of()
    with pytest.warns(UserWarning, match="no backward pass reached the statistics of layer head"):
        answers_of(judge, without_pass())
    assert states(judge)[3] == "no pass"
    answers_of(judge, without_pass())


def test_a_layer_without_a_pass_and_without_a_gradient_is_unused() -> None:
    numbers = without_pass()
    numbers[3, [Q, NORM]] = 0
    judge = judge_of()
    answers_of(judge, numbers)
    assert states(judge)[3] == "unchecked"


def test_layers_with_gates_of_their_own_may_come_without_a_pass() -> None:
    judge = judge_of(in_every_batch=[False] * COUNT)
    with pytest.warns(UserWarning, match="no backward pass reached the statistics of layer head"):
        answers_of(judge, without_pass())
    numbers = told()
    numbers[1, [PASSES, P, P_OF_ALL, SCALE]] = 0
    answers_of(judge, numbers)
