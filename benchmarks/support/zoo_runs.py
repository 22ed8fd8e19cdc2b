"""Trainings of the zoo's recipes, each in a process of its own, and finished ones from their folders."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support.run_log import error_of_run
from model_zoo.common.checkpoint.files import RUN_FILE
from model_zoo.common.checkpoint.manifest import MANIFEST_FILE
from model_zoo.common.curves import read_metrics
from model_zoo.common.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ZooRun:
    """A training that has ended.

    Attributes:
        epochs: its epoch objects; empty if it failed or its metric became NaN or infinite.
        error: why there are none, else empty.
        description: the content of its run.json; empty if there are no epochs.
    """

    epochs: Sequence[Mapping[str, Any]]
    error: str = ""
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _has_finished(output: Path, recipe: Path, overrides: Sequence[str]) -> bool:
    # A run's last file. The folder may hold a run of other epochs, or of an earlier recipe.
    if not (output / MANIFEST_FILE).exists():
        return False
    # As JSON, in which tuples are lists and keys are strings.
    wanted = json.loads(json.dumps(dataclasses.asdict(load_recipe(recipe, overrides))))
    found = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    return bool(found["recipe"] == wanted)


def train(recipe: Path, overrides: Sequence[str], data: Path | None, output: Path, metric: str) -> ZooRun:
    """Trains a recipe, unless its folder has the finished run of the same recipe with the same overrides.

    Another run in the folder is replaced.

    Args:
        recipe: the recipe.
        overrides: as ``KEY=VALUE``.
        data: the folder of its data, or None.
        output: the run's folder.
        metric: the key of the epoch objects that must be finite.

    Returns:
        The run.

    Raises:
        SystemExit: a signal ended the training, or it could not read its recipe or its data.
    """
    if not _has_finished(output, recipe, overrides):
        command = [sys.executable, "-m", "model_zoo.train", "--no-progress", "--overwrite"]
        command += ["--recipe", str(recipe), "--output", str(output)]
        command += [] if data is None else ["--data-dir", str(data)]
        for override in overrides:
            command += ["--set", override]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            return ZooRun([], error_of_run(output.name, finished.stderr, finished.returncode))
    epochs = [line for line in read_metrics(output) if line["kind"] == "epoch"]
    if not all(math.isfinite(line[metric]) for line in epochs):
        return ZooRun([], "not finite")
    return ZooRun(epochs, description=json.loads((output / RUN_FILE).read_text(encoding="utf-8")))
