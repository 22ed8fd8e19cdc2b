"""The comparison on the auto-encoder: runs of other epochs are made anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import autoencoder
from benchmarks.support.zoo_runs import ZooRun


def test_the_best_rate_is_that_of_the_asked_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def train(recipe: Path, settings: Sequence[str], data: Path, output: Path, metric: str) -> ZooRun:
        asked.append((recipe.stem, *settings, output.name))
        rate = float(settings[0].partition("=")[2])
        if rate == 0.1:
            return ZooRun([], "not finite")
        return ZooRun([{"epoch": 5, metric: 10 - rate, "seconds": 1.0}])

    monkeypatch.setattr(autoencoder, "train", train)
    best, runs, tried = autoencoder.tune(tmp_path, 5, tmp_path)
    assert best == {"sgdm": 0.01, "adam": 0.003, "kfac": 0.3}
    assert runs["kfac"][-1]["epoch"] == 5
    assert set(tried["kfac"]) == {"0.03", "0.3"}
    assert len(asked) == sum(map(len, autoencoder.GRID.values()))
    assert asked[-1] == (
        "autoencoder_mnist_kfac",
        "optimizer.learning_rate=0.3",
        "epochs=5",
        "kfac-0.3",
    )
