"""One batch's factors and second moments by the operator alone: layers, reductions, loss scale, gates."""

from __future__ import annotations

import dataclasses

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ms_kfac.curvature.eigenbasis import eigenbasis_statistics
from ms_kfac.ops.statistics import EVERYTHING, GRADIENTS, INPUTS, StatisticsOptions
from tests.oracle.eigenbasis import second_moments
from tests.oracle.patches import Geometry
from tests.support.bank import tensor
from tests.support.layer_bank import CASES, Case, build, layers_of

MEAN = StatisticsOptions(sharing="expand", mean_reduction=True, gradient_scale=1.0)
POINT = Geometry(3, 4, (2, 3), pad_mode="valid", bias=True, image=(2, 3))
ALL_CASES = (*CASES, Case(POINT), Case(middle=(2, 3), bias=False))


def orthogonal(groups: int, dimension: int, rng: np.random.Generator) -> np.ndarray:
    return np.stack([np.linalg.qr(rng.standard_normal((dimension, dimension)))[0] for _ in range(groups)])


def run(
    case: Case,
    options: StatisticsOptions,
    parts: list[tuple[np.ndarray, np.ndarray]],
    gate: int = EVERYTHING,
    scale: float = 1.0,
) -> list[np.ndarray]:
    """The state after these micro-batches with a leading axis of groups; it starts with a random basis."""
    layer = layers_of(build([case], np.random.default_rng(0)))[0]
    groups, A, G = layer.groups, layer.input_dimension, layer.output_dimension
    rng = np.random.default_rng(A)
    values = [np.zeros((groups, A, A)), np.zeros((groups, G, G)), np.zeros(3)]
    values += [orthogonal(groups, A, rng), orthogonal(groups, G, rng), np.zeros((groups, G, A))]
    if groups == 1:
        values = [value if value.ndim == 1 else value[0] for value in values]
    state = [ms.Parameter(ms.Tensor(v, ms.float32), name=f"s{i}") for i, v in enumerate(values)]
    operator = eigenbasis_statistics(layer.operators, options)
    for x, g in parts:
        dout = g * scale / (len(x) if options.mean_reduction else 1)
        operator(tensor(x), tensor(dout), ms.Tensor(gate, ms.int32), *state)
    arrays = [parameter.asnumpy() for parameter in state]
    return [array[None] if groups == 1 and array.ndim == 2 else array for array in arrays]


def assert_statistics(
    case: Case, found: list[np.ndarray], x: np.ndarray, g: np.ndarray, sharing: str = "expand"
) -> None:
    A_sum, G_sum, counts, Q_A, Q_G, s_sum = found
    for group, (A, G) in enumerate(case.factors(x, g, sharing)):
        s = second_moments(case.gradients(x, g)[group], Q_A[group], Q_G[group])
        averages = (A_sum[group] / counts[0], G_sum[group] / counts[1], s_sum[group] / counts[2])
        for average, expected in zip(averages, (A, G, s)):
            # Sums of at most a few hundred float32 products; squares of sums of them.
            np.testing.assert_allclose(average, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


OPTIONS = {
    "mean": (MEAN, 1.0),
    "sum": (dataclasses.replace(MEAN, mean_reduction=False), 1.0),
    "scale": (dataclasses.replace(MEAN, gradient_scale=1 / 1024), 1024.0),
    "reduce": (dataclasses.replace(MEAN, sharing="reduce"), 1.0),
    "separate": (dataclasses.replace(MEAN, separate=True), 1.0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_equal_the_definition(name: str, rng: np.random.Generator) -> None:
    options, scale = OPTIONS[name]
    for case in ALL_CASES:
        x, g = case.batch(6, rng)
        assert_statistics(case, run(case, options, [(x, g)], scale=scale), x, g, options.sharing)


def test_micro_batches_add_up(rng: np.random.Generator) -> None:
    for case in ALL_CASES:
        x, g = case.batch(7, rng)
        assert_statistics(case, run(case, MEAN, [(x[:2], g[:2]), (x[2:], g[2:])]), x, g)


@pytest.mark.parametrize(
    ("separate", "gate", "taken"),
    [
        (False, 0, ""),
        (False, EVERYTHING, "AGs"),
        (False, 4, "s"),
        (False, EVERYTHING + 4, "AGs"),
        (True, 0, ""),
        (True, INPUTS, "A"),
        (True, GRADIENTS, "Gs"),
        (True, EVERYTHING, "AGs"),
        (True, 4, "s"),
        (True, INPUTS + 4, "As"),
        (True, GRADIENTS + 4, "Gs"),
        (True, EVERYTHING + 4, "AGs"),
    ],
)
def test_gate_codes(separate: bool, gate: int, taken: str, rng: np.random.Generator) -> None:
    options = dataclasses.replace(MEAN, separate=separate)
    A_sum, G_sum, counts, _, _, s_sum = run(CASES[0], options, [CASES[0].batch(6, rng)], gate)
    for letter, array, count in zip("AGs", (A_sum, G_sum, s_sum), counts):
        assert array.any() == (letter in taken), letter
        assert count == (6 if letter in taken else 0), letter


@settings(max_examples=8)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.booleans(),
)
def test_random_shapes(
    samples: int, channels: int, kernel: int, locations: int, groups: int, bias: bool
) -> None:
    rng = np.random.default_rng(samples + 10 * channels + 100 * kernel)
    shape = Geometry(
        groups * channels,
        2 * groups,
        (kernel, 1),
        pad_mode="pad",
        padding=1,
        groups=groups,
        bias=bias,
        image=(kernel + locations, 3),
    )
    for case in (Case(shape), Case(d_in=channels, d_out=kernel, bias=bias, middle=(locations,) * groups)):
        x, g = case.batch(samples, rng)
        assert_statistics(case, run(case, MEAN, [(x, g)]), x, g)
