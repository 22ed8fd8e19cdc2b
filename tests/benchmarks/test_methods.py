"""The comparison of all methods: its trials, its files and its table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods
from benchmarks.support.zoo_runs import ZooRun

EPOCH = {
    "epoch": 2,
    "seconds": 3.0,
    "running_loss": 0.5,
    "test_accuracy": 0.9,
    "images_per_second": 100.0,
    "first_step_seconds": 1.0,
}
DESCRIPTION = {"headline": "test_accuracy", "recipe": {"data": {"batch_size": 32}}}


@pytest.mark.parametrize(
    ("names", "stem"),
    [(",".join((*methods.FIRST_ORDER, *methods.SECOND_ORDER)), "digits"), ("kfac,sgdm", "digits_sgdm_kfac")],
)
def test_the_best_point_is_trained_in_full(
    names: str, stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def train(recipe: Path, settings: Sequence[str], data: Any, output: Path, metric: str) -> ZooRun:
        asked.append((recipe.stem, *settings, output.name))
        rate = float(settings[0].partition("=")[2])
        if "adam" in recipe.stem and rate < 0.01:
            return ZooRun([], "not finite")
        return ZooRun([{**EPOCH, "running_loss": 1 - rate}], description=DESCRIPTION)

    monkeypatch.setattr(methods, "train", train)
    monkeypatch.setattr(methods, "draw_curves", lambda *given: given[-1].touch())
    arguments = ["methods", "--task", "digits", "--methods", names, "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--jobs", "1", "--epochs", "3"])
    methods.main()
    assert ("resnet20_digits_sgdm", "optimizer.learning_rate=0.3", "epochs=2", "sgdm-0.3") in asked
    assert ("resnet20_digits_sgdm", "optimizer.learning_rate=0.3", "epochs=3", "sgdm-0.3-full") in asked
    assert {path.name for path in tmp_path.iterdir()} == {f"{stem}.{kind}" for kind in ("json", "txt", "png")}
    written = json.loads((tmp_path / f"{stem}.json").read_text())
    assert set(written["runs"]) == set(names.split(","))
    assert written["grid"]["sgdm"]["sgdm-0.3"] == pytest.approx(0.7)
    table = (tmp_path / f"{stem}.txt").read_text().splitlines()
    assert next(line.split() for line in table if line.split()[0] == "sgdm")[:3] == ["sgdm", "0.3", "0.7"]
