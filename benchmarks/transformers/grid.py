"""The tasks, the methods and their grids. All grids have the same size."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

# Tasks: the recipes without the optimizer's name, and overrides for the benchmark.
TASKS = {
    "gpt_stdlib": ("model_zoo/gpt/gpt_stdlib", ("data.evaluation_windows=1024",)),
    "vit_digits": ("model_zoo/vit/vit_digits", ()),
    "vit_cifar10": ("model_zoo/vit/vit_cifar10", ()),
}

RATE, DAMPING, CLIP = "optimizer.learning_rate", "optimizer.damping", "optimizer.kl_clip"


@dataclass(frozen=True)
class Method:
    """A method and its grid.

    Attributes:
        recipe: the last word of its recipes.
        grid: the values of the two keys that are tuned.
        settings: overrides of the recipe.
    """

    recipe: str
    grid: dict[str, tuple[float, ...]]
    settings: tuple[str, ...] = ()

    def points(self) -> list[str]:
        """The points of the grid, each as overrides separated by spaces."""
        return [
            " ".join(f"{key}={value:g}" for key, value in zip(self.grid, values))
            for values in itertools.product(*self.grid.values())
        ]

    def edges(self, point: str) -> list[str]:
        """The keys whose value at a point is the first or the last of the grid."""
        chosen = dict(part.split("=") for part in point.split())
        return [key for key, values in self.grid.items() if float(chosen[key]) in (values[0], values[-1])]


def _second_order(recipe: str, *settings: str) -> Method:
    # The loss of a text is a mean over T positions, which makes K-FAC's curvature about T times smaller than
    # that of one position: small dampings pay, and with them small clips. While the clip is active it sets
    # the step's length, and the learning rate has hardly any effect.
    grid = {CLIP: (1e-6, 1e-5, 1e-4, 1e-3), DAMPING: (1e-5, 1e-4, 1e-3)}
    return Method(recipe, grid, (f"{RATE}=0.1", *settings))


METHODS = {
    "adamw": Method("adamw", {RATE: (0.0005, 0.001, 0.002, 0.004), "optimizer.beta2": (0.95, 0.99, 0.999)}),
    "sgdm": Method("sgdm", {RATE: (0.03, 0.1, 0.3, 1.0), "optimizer.momentum": (0.8, 0.9, 0.95)}),
    "kfac": _second_order("kfac"),
    "kfac-momentum": _second_order("kfac", "optimizer.first_order={name: momentum}"),
    "kfac-reduce": _second_order("kfac", "optimizer.sharing=reduce"),
    "kfac-sampled": _second_order("kfac", "optimizer.fisher=sampled"),
    "kfac-unitwise": _second_order("kfac", "optimizer.normalization=unit_wise"),
    "ekfac": _second_order("ekfac"),
    "ekfac-reduce": _second_order("ekfac", "optimizer.sharing=reduce"),
    "skfac": _second_order("skfac"),
    "skfac-reduce": _second_order("skfac", "optimizer.sharing=reduce"),
}
DEFAULT_METHODS = "adamw,sgdm,kfac,kfac-reduce,ekfac,skfac"


def known_methods(text: str) -> list[str]:
    """Reads names of methods that are separated by commas, for argparse."""
    names = text.split(",")
    for name in names:
        if name not in METHODS:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(METHODS)}, got {name}")
    return names


def recipe_of(task: str, method: str) -> str:
    """The recipe's path from the root of the project."""
    return f"{TASKS[task][0]}_{METHODS[method].recipe}.yaml"


def settings_of(task: str, method: str, others: Sequence[str]) -> list[str]:
    """The overrides of a method's recipe, without those of a point.

    Args:
        task: the task.
        method: the method.
        others: overrides of the command line.

    Returns:
        Overrides as ``KEY=VALUE``.
    """
    return [*METHODS[method].settings, *TASKS[task][1], *others]
