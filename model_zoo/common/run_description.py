"""run.json, and the lines that say what a run is made of."""

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

from model_zoo.common import host
from model_zoo.common.options.networks import FIGURE_OF_NETWORK
from model_zoo.common.recipe import Recipe

RUN_FILE = "run.json"
DATA = "data"
RESUMED = "resumed_after_steps"


def headline_figure(recipe: Recipe) -> str:
    """The key of the epoch objects that judges a run.

    An auto-encoder is judged by how well it fits the training images, a classifier by images that it has not
    seen.

    Args:
        recipe: the recipe of the run.

    Returns:
        Such as "test_accuracy".
    """
    figure = FIGURE_OF_NETWORK[recipe.network.name]
    for split in ("train", "test") if figure == "reconstruction_error" else ("test", "train"):
        if split in recipe.evaluate:
            return f"{split}_{figure}"
    return f"running_{figure}"


def describe_run(name: str, recipe: Recipe, device: str) -> dict[str, Any]:
    """What run.json holds.

    Args:
        name: the run's name.
        recipe: the recipe as resolved.
        device: "CPU", "GPU" or "Ascend".

    Returns:
        Recipe, versions and machine, as JSON has them.
    """
    return {
        "name": name,
        "recipe": dataclasses.asdict(recipe),
        "headline": headline_figure(recipe),
        "versions": {
            "python": platform.python_version(),
            "mindspore": ms.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "device": device,
            host.ONEDNN_VARIABLE: os.environ.get(host.ONEDNN_VARIABLE),
        },
    }


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes run.json."""
    (folder / RUN_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def resumed_after(folder: Path) -> list[int]:
    """The steps after which a run has been resumed so far.

    Args:
        folder: the run's folder.

    Returns:
        What its run.json says; nothing where there is none.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        return []
    steps: list[int] = json.loads(path.read_text(encoding="utf-8")).get(RESUMED, [])
    return steps


def describe_section(section: Any) -> str:
    """One section of a recipe in a line, as "sgdm (learning_rate 0.1, momentum 0.9)"."""
    options = dataclasses.asdict(section)
    name = options.pop("name")
    shown = ", ".join(
        f"{key} {' '.join(map(str, value.values())) if key.endswith('schedule') else value}"
        for key, value in options.items()
    )
    return f"{name} ({shown})" if shown else name


def describe_broken_images(data: Mapping[str, Any]) -> list[str]:
    """What to print of images that could not be decoded and were skipped.

    Args:
        data: what run.json says of the data.

    Returns:
        One line an image, and their number first; nothing where there was none.
    """
    broken = data.get("broken_images", {})
    lines = [f"  {name} {reason}" for name, reason in broken.items()]
    return [f"broken images that were skipped: {len(lines):,}", *lines] if lines else []
