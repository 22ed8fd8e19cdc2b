"""All libraries train the zoo's networks."""

from __future__ import annotations

import importlib.metadata

import pytest

from benchmarks.peers import problems
from benchmarks.peers.libraries import LIBRARIES, create_step
from benchmarks.peers.measure import summarize
from benchmarks.peers.problems import KINDS, create_problem
from model_zoo.autoencoder import network as autoencoder
from model_zoo.convnet import network as convnet


def test_the_sizes_are_those_of_the_zoo() -> None:
    assert (problems.CHANNELS, problems.KERNEL, problems.SIDE) == (
        convnet.CHANNELS,
        convnet.KERNEL,
        convnet.SIDE,
    )
    assert (problems.WIDTHS, problems.CODE_LAYER) == (autoencoder.SIZES, autoencoder.CODE_LAYER)


@pytest.mark.parametrize("problem", ["convnet", "autoencoder"])
def test_our_loss_falls(problem: str) -> None:
    step = create_step("ms_kfac kfac", create_problem(problem), "everything")
    losses = [float(step()) for _ in range(3)]
    assert losses[-1] < losses[0]


OTHERS = [name for name in LIBRARIES if not name.startswith("ms_kfac")]


@pytest.mark.parametrize("kind", ["sgd", "everything"])
@pytest.mark.parametrize("library", OTHERS)
def test_the_loss_of_the_others_falls(library: str, kind: str) -> None:
    package = LIBRARIES[library].package
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    step = create_step(library, create_problem("autoencoder"), kind)
    losses = [float(step()) for _ in range(3)]
    assert losses[-1] < losses[0]


def test_every_library_trains_with_sgd_and_can_keep_or_refresh_its_curvature() -> None:
    for library in LIBRARIES.values():
        assert set(library.kinds) >= {"sgd", "kept", "everything"}
        assert set(library.kinds) <= set(KINDS)


def test_medians_are_in_milliseconds() -> None:
    assert summarize({"sgd": [0.001, 0.002, 0.003]})["sgd"]["median"] == pytest.approx(2.0)


def test_an_unknown_problem_is_refused() -> None:
    with pytest.raises(ValueError, match="must be convnet or autoencoder, got 'vgg'"):
        create_problem("vgg")
