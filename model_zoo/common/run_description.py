"""Writes run.json and formats the lines that describe a run."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

import ms_kfac
from model_zoo.common import environment
from model_zoo.common.options.networks import METRIC_OF_NETWORK
from model_zoo.common.recipe import Recipe

DATA = "data"
KERNELS = "kernels"
OPTIONS = "options"
RANKS = "ranks"
RESUMED = "resumed_after_steps"


def headline_metric(recipe: Recipe) -> str:
    """The key of the metric by which a run is judged.

    An auto-encoder is judged by its reconstruction of the training images, other networks by the test split.

    Args:
        recipe: the recipe of the run.

    Returns:
        A key of the epoch objects, such as "test_accuracy".
    """
    metric = METRIC_OF_NETWORK[recipe.network.name]
    for split in ("train", "test") if metric == "reconstruction_error" else ("test", "train"):
        if split in recipe.evaluate:
            return f"{split}_{metric}"
    return f"running_{metric}"


def describe_run(name: str, recipe: Recipe, device: str) -> dict[str, Any]:
    """The content of run.json.

    Args:
        name: the run's name.
        recipe: the recipe with all overrides.
        device: "CPU", "GPU" or "Ascend".

    Returns:
        The recipe, the versions, the machine and the status of the kernels, as JSON values.
    """
    return {
        "name": name,
        "recipe": dataclasses.asdict(recipe),
        "headline": headline_metric(recipe),
        "versions": {
            "python": platform.python_version(),
            "ms_kfac": ms_kfac.__version__,
            "mindspore": ms.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "device": device,
            environment.ONEDNN_VARIABLE: os.environ.get(environment.ONEDNN_VARIABLE),
        },
        KERNELS: ms_kfac.kernels.status().splitlines(),
    }


def write_description(path: Path, description: dict[str, Any]) -> None:
    """Writes run.json, or the file that replaces it."""
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def describe_section(section: Any) -> str:
    """Formats a section of a recipe as one line, such as "sgdm (learning_rate 0.1, momentum 0.9)"."""
    options = dataclasses.asdict(section)
    name = options.pop("name")
    shown = ", ".join(
        f"{key} {' '.join(map(str, value.values())) if key.endswith(('schedule', 'first_order')) else value}"
        for key, value in options.items()
    )
    return f"{name} ({shown})" if shown else name


def describe_sizes(data: Mapping[str, Any]) -> str:
    """Formats the data entry of run.json as one line, such as "digits: 20 training and 10 test images"."""
    unit = "images" if "training_images" in data else "bytes"
    return f"{data['title']}: {data[f'training_{unit}']:,} training and {data[f'test_{unit}']:,} test {unit}"


def describe_broken_images(data: Mapping[str, Any]) -> list[str]:
    """Formats the list of images that could not be decoded and were skipped.

    Args:
        data: the data entry of run.json.

    Returns:
        Their number, then one line per image; empty if no image was broken.
    """
    broken = data.get("broken_images", {})
    lines = [f"  {name} {reason}" for name, reason in broken.items()]
    return [f"skipped broken images: {len(lines):,}", *lines] if lines else []
