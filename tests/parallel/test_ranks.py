"""Ranks of msrun, each on its part of every batch, end with the weights of one process on whole batches."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from ms_kfac.parallel import Distribution, LayerSize, plan
from tests.parallel.cases import CASES, DRAWN, LONG, SHORT, Net
from tests.parallel.launch import Rank, launch

# One worker of pytest-xdist starts each number of ranks once.
pytestmark = pytest.mark.xdist_group("ranks")

CASES_OF = {1: (*LONG, *SHORT), 2: (*LONG, *SHORT, *DRAWN), 4: tuple(LONG)}
Runs = dict[int, dict[str, list[Rank]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return {
        size: launch(size, cases, tmp_path_factory.mktemp(f"ranks{size}")) for size, cases in CASES_OF.items()
    }


PAIRS = [(size, name) for size in (2, 4) for name in CASES_OF[size] if name not in DRAWN]


@pytest.mark.parametrize(("size", "name"), PAIRS)
def test_ranks_end_with_the_weights_of_one_process(runs: Runs, size: int, name: str) -> None:
    """Sums over rows in another order: 50 steps of float32's 6e-8 on weights below 1, times some."""
    (alone,) = runs[1][name]
    for key, expected in alone.weights.items():
        found = runs[size][name][0].weights[key]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=key)
    assert runs[size][name][0].shown["refreshes"] == alone.shown["refreshes"]


@pytest.mark.parametrize(("size", "name"), [(size, name) for size in (2, 4) for name in CASES_OF[size]])
def test_all_ranks_have_the_same_weights_to_the_bit(runs: Runs, size: int, name: str) -> None:
    first, *others = runs[size][name]
    for other in others:
        for key, expected in first.weights.items():
            np.testing.assert_array_equal(other.weights[key], expected, err_msg=key)


@pytest.mark.parametrize("name", [*LONG, *SHORT])
def test_the_comparison_is_of_weights_that_have_moved(runs: Runs, name: str) -> None:
    start = Net().parameters_dict()
    (alone,) = runs[1][name]
    for key, value in alone.weights.items():
        assert np.abs(value - start[key].asnumpy()).max() > 1e-3, key


@pytest.mark.parametrize("size", [1, 2, 4])
def test_different_initial_weights_give_a_warning_on_all_ranks(runs: Runs, size: int) -> None:
    for rank in runs[size]["KFAC"]:
        sentences = [text[: text.index(",")] for text in rank.shown["told"]]
        assert sentences == ([f"rank {size - 1} begins with other weights than rank 0"] if size > 1 else [])


@pytest.mark.parametrize("size", [2, 4])
def test_a_search_finds_the_same_on_all_ranks(runs: Runs, size: int) -> None:
    """The losses are means over the rows of all ranks, and so those of one process on whole batches."""
    (alone,) = runs[1]["KFAC"]
    first, *others = (rank.shown["found"] for rank in runs[size]["KFAC"])
    np.testing.assert_allclose(first, alone.shown["found"], rtol=1e-4)
    for other in others:
        assert other == first


@pytest.mark.parametrize("size", [2, 4])
def test_synchronized_states_are_equal(runs: Runs, size: int) -> None:
    """Exchange of gradients: before it, inverses are with their owners alone."""
    first, *others = runs[size]["KFAC gradients"]
    assert first.equal
    for other in others:
        for key, expected in first.equal.items():
            # What is staged is a rank's own batch, and the next pass replaces it.
            if not key.endswith("_batch"):
                np.testing.assert_array_equal(other.equal[key], expected, err_msg=key)
        assert any(
            not np.array_equal(other.state[key], first.state[key])
            for key in first.state
            if key.endswith("_inverse")
        )


def test_statistics_stay_local_until_they_are_reduced(runs: Runs) -> None:
    """50 steps, refreshes at multiples of 3: two batches since the last."""
    first, second = runs[2]["KFAC"]
    assert not np.array_equal(first.state["kfac.head.A_sum"], second.state["kfac.head.A_sum"])
    np.testing.assert_array_equal(first.state["kfac.head.A_inverse"], second.state["kfac.head.A_inverse"])


def test_scattered_statistics_are_with_their_owner(runs: Runs) -> None:
    """8 steps, refreshes at 0, 3 and 6; the batch of step 7 weighs 4 samples per rank."""
    first, second = runs[2]["reduce_scatter"]
    counts = sorted(float(rank.state["kfac.conv.weights"][0]) for rank in (first, second))
    assert counts[0] == 4.0
    assert counts[1] > 8.0


def test_ranks_draw_different_targets(runs: Runs) -> None:
    """On the same rows with the same seed."""
    first, second = runs[2]["sampled"]
    assert not np.array_equal(first.state["kfac.head.G_sum"], second.state["kfac.head.G_sum"])


def test_damping_adapts_to_the_loss_of_the_whole_batch(runs: Runs) -> None:
    """The ratio of two changes of the loss, each a difference of numbers near 1 in float32."""
    (alone,) = runs[1]["LevenbergMarquardt"]
    for rank in runs[2]["LevenbergMarquardt"]:
        for key in ("kfac.damping.ratio", "kfac.damping.value"):
            np.testing.assert_allclose(rank.state[key], alone.state[key], rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_moving_moments_are_averaged(runs: Runs, size: int) -> None:
    mean = (size - 1) / 2
    for rank in runs[size]["KFAC"]:
        assert rank.shown["moments"] == [[mean, 10 * mean]] * 2


def test_repr_and_summary_say_how_curvature_is_distributed(runs: Runs) -> None:
    said = runs[2]["KFAC gradients"][0].shown
    assert "distributed over 2 ranks by all_reduce, exchange 'gradients'" in said["repr"]
    assert said["repr"] in said["summary"].replace("\n ", "")
    assert "by reduce_scatter, exchange 'inverses'" in runs[2]["reduce_scatter"][0].shown["repr"]
    assert "distributed" not in runs[1]["KFAC"][0].shown["repr"]
    assert runs[1]["KFAC"][0].shown["traffic"] is None


PLANNED = {
    "KFAC": Distribution(collective="all_reduce"),
    "KFAC gradients": Distribution(exchange="gradients", collective="all_reduce"),
    "reduce_scatter": Distribution(),
}


@pytest.mark.parametrize(("size", "name"), [(2, "KFAC"), (4, "KFAC gradients"), (2, "reduce_scatter")])
def test_traffic_equals_the_plan(runs: Runs, size: int, name: str) -> None:
    layers = [LayerSize(19, 3, bias=True), LayerSize(49, 7, bias=True), LayerSize(8, 3, bias=True)]
    planned = plan(layers, size, PLANNED[name])
    for rank in runs[size][name]:
        assert rank.shown["traffic"] == {**asdict(planned), "owners": list(planned.owners)}


def test_every_case_is_compared() -> None:
    assert {name for names in CASES_OF.values() for name in names} == set(CASES)
