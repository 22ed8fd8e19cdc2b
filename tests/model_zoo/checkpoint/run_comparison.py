"""Comparisons of two runs: all Parameters of the last checkpoint, and the metrics logs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from model_zoo.common.checkpoint.files import (
    STATE_FILE,
    checkpoint_at,
    checkpoints_folder,
    remove_checkpoints,
    steps_in,
)
from model_zoo.common.curves import read_metrics
from model_zoo.common.data.shards import Shard


def final_state(run: Path) -> dict[str, np.ndarray]:
    """Every Parameter of a run's newest checkpoint by name."""
    folder = checkpoints_folder(run, Shard())
    path = checkpoint_at(folder, steps_in(folder)[-1]) / STATE_FILE
    return {name: value.asnumpy() for name, value in ms.load_checkpoint(str(path)).items()}


def assert_same_bits(found: Path, expected: Path) -> None:
    """Compares the states of two runs as bytes, which also compares signs of zero and NaN."""
    state, wanted = final_state(found), final_state(expected)
    assert state.keys() == wanted.keys()
    differing = [name for name, value in wanted.items() if state[name].tobytes() != value.tobytes()]
    assert differing == []


def metrics_without_times(run: Path) -> list[dict[str, Any]]:
    """The objects of metrics.jsonl without their times."""
    timed = ("seconds", "epoch_seconds", "images_per_second", "first_step_seconds")
    return [{key: value for key, value in line.items() if key not in timed} for line in read_metrics(run)]


def as_if_killed(run: Path, copy: Path, step: int) -> Path:
    """Copies a run and removes everything after the checkpoint of a step, as if it had been killed there."""
    shutil.copytree(run, copy)
    folder = checkpoints_folder(copy, Shard())
    assert step in steps_in(folder)
    remove_checkpoints(folder, [other for other in steps_in(folder) if other > step])
    (copy / "network.ckpt").unlink()
    return copy
